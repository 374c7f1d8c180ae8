"""Sentence-transformers folders: the modules that modules.json lists, and the settings beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bertsym.families import printable
from bertsym.json_reader import JsonValue, read_json, read_json_array
from bertsym.sources.pretrained import Pooling

MODULES, SETTINGS, PROMPTS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
CROSS_ENCODER = "CrossEncoder"  #: model_type of a model that scores pairs of texts

# mode of a Pooling module -> description, and our equivalent pooling
_POOLINGS = {
    "cls": ("the [CLS] token", "cls"),
    "mean": ("mean of the tokens", "mean"),
    "max": ("maximum of the tokens", "max"),
    "mean_sqrt_len_tokens": ("sum of the tokens, divided by the square root of their number", None),
    "weightedmean": ("mean of the tokens, weighted by position", None),
    "lasttoken": ("the last token", None),
}
#: mode -> its key in older versions, in the order in which their vectors are concatenated there
LEGACY_MODES = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_SHOWN_PROMPTS, _SHOWN_CHARACTERS = 8, 60


@dataclass(frozen=True)
class Module:
    """A module after the transformer."""

    type: JsonValue  #: its class, such as ``sentence_transformers.models.Pooling``
    folder: Path
    config: JsonValue  #: its config.json; an empty object where there is none

    @property
    def kind(self) -> str:
        """The name of its class, which is in another Python module in newer versions of the library."""
        return self.type.text().rpartition(".")[2]

    @property
    def name(self) -> str:
        """The name of its folder, for messages."""
        return printable(self.folder.name)


@dataclass(frozen=True)
class SentenceModules:
    """The modules and settings of a sentence-transformers folder."""

    transformer: Path  #: folder of the transformer
    others: tuple[Module, ...]  #: after the transformer, in order
    files: tuple[Path, ...]  #: the files that were read
    max_seq_length: int | None
    lower_case: bool  #: whether texts are lower-cased before tokenization
    task: JsonValue  #: what the transformer computes; null: the encodings of the tokens
    prompts: JsonValue  #: PROMPTS; an empty object where there is none
    notes: tuple[str, ...] = field(default=())

    @property
    def is_cross_encoder(self) -> bool:
        """Whether the model scores pairs of texts, by a head of the transformer."""
        return bool(self.prompts.get("model_type").raw == CROSS_ENCODER)

    @property
    def pooling(self) -> Pooling | None:
        """The first pooling."""
        found = next((module for module in self.others if module.kind == "Pooling"), None)
        if found is None:
            return None
        known = [_POOLINGS.get(mode, (printable(mode), None)) for mode in pooling_modes(found.config)]
        description = " beside ".join(description for description, _ in known) or "no pooling_mode"
        return Pooling(found.name, description, known[0][1] if len(known) == 1 else None)

    def left_out_notes(self, max_length: int, lower_case: bool) -> tuple[str, ...]:
        """Notes on what a bundle of the encoder alone leaves out, with these settings of its tokenizer."""
        notes, has_pooling = [], False
        for module in self.others:
            if module.kind != "Pooling" or has_pooling:
                advice = "not in this bundle; embed --normalize" if module.kind == "Normalize" else "ignored"
                notes.append(f"{module.name}: {_describe(module)}: {advice}")
            has_pooling |= module.kind == "Pooling"
        notes += _prompt_notes(self.prompts)
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
    path = folder / MODULES
    if not path.exists():
        return None
    files = [path]
    transformer, *others = read_json_array(path).elements(1, 64)
    transformer_folder = _module_folder(folder, transformer)
    modules = []
    for module in others:
        module_folder = _module_folder(folder, module)
        config_path = module_folder / "config.json"
        config = JsonValue({}, str(config_path))
        module["type"].text()
        if config_path.exists() and module_folder != folder:
            config = read_json(config_path)
            files.append(config_path)
        modules.append(Module(module["type"], module_folder, config))
    settings, prompts = (JsonValue({}, str(path)) for path in (transformer_folder / SETTINGS, folder / PROMPTS))
    if Path(settings.where).exists():
        settings = read_json(settings.where)
        files.append(Path(settings.where))
    if Path(prompts.where).exists():
        prompts = read_json(prompts.where)
        files.append(Path(prompts.where))
    return SentenceModules(
        transformer_folder,
        tuple(modules),
        tuple(files),
        settings.get("max_seq_length").optional(lambda value: value.integer(1)),
        settings.get("do_lower_case").optional(JsonValue.boolean) is True,
        settings.get("transformer_task"),
        prompts,
        () if transformer_folder == folder else (f"{MODULES}: the transformer is in {transformer_folder.name}",),
    )


def pooling_modes(config: JsonValue) -> list[str]:
    """The modes of a Pooling module, by their newer names, in the order in which their vectors are concatenated."""
    mode = config.get("pooling_mode")
    if not mode.is_null:  # of newer versions
        return [mode.text()] if mode.is_text else list(mode.texts())
    return [mode for mode, key in LEGACY_MODES.items() if config.get(key).optional(JsonValue.boolean)]


def read_prompts(config: JsonValue) -> Mapping[str, str]:
    """The prompts by name."""
    prompts = config.get("prompts").optional(JsonValue.items) or ()
    return {name: prompt.text() for name, prompt in prompts}


def _module_folder(folder: Path, module: JsonValue) -> Path:
    path = module["path"]
    return folder / path.file_name() if path.text() else folder


def _describe(module: Module) -> str:
    kind, config = module.kind, module.config
    if kind == "Normalize":
        return "embeddings scaled to length 1"
    if kind == "Dense" and "in_features" in config:
        activation = config.get("activation_function", "").text().rpartition(".")[2]
        sizes = f"{config['in_features'].integer(1)} -> {config['out_features'].integer(1)}"
        return f"Dense {sizes}{f', {printable(activation)}' if activation else ''}"
    return printable(kind)


def _prompt_notes(config: JsonValue) -> list[str]:
    found = [f"{printable(name)} {_quoted(prompt)}" for name, prompt in read_prompts(config).items() if prompt]
    if not found:
        return []
    more = f" and {len(found) - _SHOWN_PROMPTS} more" if len(found) > _SHOWN_PROMPTS else ""
    default = config.get("default_prompt_name").optional(JsonValue.text)
    by_default = f"; default_prompt_name {_quoted(default)}" if default else ""
    return [f"prompts {', '.join(found[:_SHOWN_PROMPTS])}{more}{by_default}: not in this bundle; embed --prompt TEXT"]


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")
