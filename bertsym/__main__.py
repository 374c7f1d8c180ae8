"""``python -m bertsym``."""

from bertsym.cli import main

if __name__ == "__main__":
    main()
