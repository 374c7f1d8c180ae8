"""Compare bertsym/compat/bert_tokenizer.py with gluonnlp's extension: all code points, and random texts.

Needs a gluonnlp that was installed with a compiler: `pip install --force-reinstall --no-deps gluonnlp==0.10.0`.
"""

from __future__ import annotations

import random
import sys

import bertsym.compat.bert_tokenizer as ours


def main() -> None:
    from gluonnlp.data import fast_bert_tokenizer as theirs

    if not theirs.__file__.endswith((".so", ".pyd")):
        sys.exit("error: this gluonnlp has no extension")
    generator = random.Random(1)
    alphabet = [chr(code) for code in range(0x250)] + list("中ßİΣ\u0301\u2028\u3000ﷺ") + [" "] * 100
    texts = ["".join(generator.choices(alphabet, k=generator.randrange(1, 60))) for _ in range(20_000)]
    alone = [f"a{chr(code)}b {chr(code)}" for code in range(sys.maxunicode + 1)]
    words = sorted({word for text in texts for word in ours.BasicTokenizer().tokenize(text)})
    vocabulary = {piece for word in words for piece in (word[:2], f"##{word[2:3]}", f"##{word[2:4]}")}
    differences = 0
    for lower in (True, False):
        one, other = ours.BasicTokenizer(lower), theirs.BasicTokenizer(lower)
        for name, some in (("code points", alone), ("random texts", texts)):
            differing = [text for text in some if one.tokenize(text) != other.tokenize(text)]
            print(f"BasicTokenizer(lower={lower}): {len(some)} {name}, {len(differing)} differences {differing[:3]}")
            differences += len(differing)
    one, other = ours.WordpieceTokenizer(vocabulary), theirs.WordpieceTokenizer(vocabulary)
    differing = [word for word in words if one.tokenize(word) != other.tokenize(word)]
    print(f"WordpieceTokenizer: {len(words)} words, {len(differing)} differences {differing[:3]}")
    sys.exit(1 if differences or differing else 0)


if __name__ == "__main__":
    main()
