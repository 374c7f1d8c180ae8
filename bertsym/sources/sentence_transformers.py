"""Folders of sentence-transformers: find the transformer, and note the modules after it, which are not exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bertsym.families import printable
from bertsym.json_reader import JsonValue, read_json, read_json_array
from bertsym.sources.pretrained import Pooling

# pooling_mode_* of a Pooling module's config.json -> description, and our equivalent pooling
_POOLING_MODES = {
    "cls_token": ("the [CLS] token", "cls"),
    "mean_tokens": ("mean of the tokens", "mean"),
    "max_tokens": ("maximum of the tokens", "max"),
    "mean_sqrt_len_tokens": ("sum of the tokens, divided by the square root of their number", None),
    "weightedmean_tokens": ("mean of the tokens, weighted by position", None),
    "lasttoken": ("the last token", None),
}
_SHOWN_PROMPTS, _SHOWN_CHARACTERS = 8, 60


@dataclass(frozen=True)
class SentenceModules:
    """The modules of a folder of sentence-transformers."""

    transformer: Path  #: folder of the transformer
    pooling: Pooling | None
    notes: tuple[str, ...]  #: on settings that are ignored
    files: tuple[Path, ...]  #: the files that were read
    max_seq_length: int | None
    lower_case: bool  #: whether texts are lower-cased before tokenization

    def text_notes(self, max_length: int, lower_case: bool) -> tuple[str, ...]:
        """Note how a tokenizer with these settings differs."""
        notes = []
        if self.max_seq_length not in (None, max_length):
            notes.append(
                f"max_seq_length {self.max_seq_length}: not in this bundle, which truncates at {max_length}; "
                f"embed --max-length {self.max_seq_length}"
            )
        if self.lower_case and not lower_case:
            notes.append("do_lower_case true: ignored, this bundle does not lower-case texts")
        return tuple(notes)


def read_modules(folder: Path) -> SentenceModules | None:
    """Read modules.json and the files that it names; None for a folder without it.

    Raises ModelError for contents that sentence-transformers does not write.
    """
    path = folder / "modules.json"
    if not path.exists():
        return None
    files, notes = [path], []
    pooling = None
    transformer, *others = read_json_array(path).elements(1, 64)
    transformer_folder = _module_folder(folder, transformer)
    if transformer_folder != folder:
        notes.append(f"modules.json: the transformer is in {transformer_folder.name}")
    for module in others:
        kind = module["type"].text().rpartition(".")[2]
        name = printable(module["path"].text() or kind)
        config_path = _module_folder(folder, module) / "config.json"
        config = JsonValue({}, str(config_path))
        if config_path.exists() and config_path.parent != folder:
            config = read_json(config_path)
            files.append(config_path)
        if kind == "Pooling" and pooling is None:
            pooling = _pooling(name, config)
        else:
            advice = "not in this bundle; embed --normalize" if kind == "Normalize" else "ignored"
            notes.append(f"{name}: {_describe(kind, config)}: {advice}")
    settings_path, prompts_path = (
        transformer_folder / "sentence_bert_config.json",
        folder / "config_sentence_transformers.json",
    )
    max_seq_length, lower_case = None, False
    if settings_path.exists():
        settings = read_json(settings_path)
        files.append(settings_path)
        max_seq_length = settings.get("max_seq_length").optional(lambda value: value.integer(1))
        lower_case = settings.get("do_lower_case").optional(JsonValue.boolean) is True
    if prompts_path.exists():
        notes += _prompt_notes(read_json(prompts_path))
        files.append(prompts_path)
    return SentenceModules(transformer_folder, pooling, tuple(notes), tuple(files), max_seq_length, lower_case)


def _module_folder(folder: Path, module: JsonValue) -> Path:
    path = module["path"]
    return folder / path.file_name() if path.text() else folder


def _pooling(name: str, config: JsonValue) -> Pooling:
    modes = [
        key.removeprefix("pooling_mode_")
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value.boolean()
    ]
    if "pooling_mode" in config:  # of newer versions
        mode = config["pooling_mode"].text()
        modes.append(next((known for known in _POOLING_MODES if known in (f"{mode}_token", f"{mode}_tokens")), mode))
    known = [_POOLING_MODES.get(mode, (printable(mode), None)) for mode in modes]
    description = " beside ".join(description for description, _ in known) or "no pooling_mode"
    return Pooling(name, description, known[0][1] if len(known) == 1 else None)


def _describe(kind: str, config: JsonValue) -> str:
    if kind == "Normalize":
        return "embeddings scaled to length 1"
    if kind == "Dense" and "in_features" in config:
        activation = config.get("activation_function", "").text().rpartition(".")[2]
        sizes = f"{config['in_features'].integer(1)} -> {config['out_features'].integer(1)}"
        return f"Dense {sizes}{f', {printable(activation)}' if activation else ''}"
    return printable(kind)


def _prompt_notes(config: JsonValue) -> list[str]:
    prompts = config.get("prompts").optional(JsonValue.items) or ()
    found = [f"{printable(name)} {_quoted(prompt.text())}" for name, prompt in prompts if prompt.text()]
    if not found:
        return []
    more = f" and {len(found) - _SHOWN_PROMPTS} more" if len(found) > _SHOWN_PROMPTS else ""
    default = config.get("default_prompt_name").optional(JsonValue.text)
    by_default = f"; default_prompt_name {_quoted(default)}" if default else ""
    return [f"prompts {', '.join(found[:_SHOWN_PROMPTS])}{more}{by_default}: not in this bundle; embed --prompt TEXT"]


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")
