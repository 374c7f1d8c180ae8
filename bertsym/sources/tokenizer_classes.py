"""The tokenizer classes of transformers: special tokens and, as documents, the components that each class builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.json_reader import JsonValue
from bertsym.text.template import read_template
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.tokenizer_model import MODELS
from bertsym.text.vocabulary import BERT_TOKENS, Vocabulary
from bertsym.text.wordpiece import BERT_PRE_TOKENIZER, MAX_WORD, bert_normalizer, bert_template

Component = dict[str, Any]
_SPACE = "\u2581"  # with which SentencePiece writes a space
_ROBERTA_TOKENS = {
    "bos": "<s>",
    "eos": "</s>",
    "unk": "<unk>",
    "sep": "</s>",
    "pad": "<pad>",
    "cls": "<s>",
    "mask": "<mask>",
}

#: settings of RoBERTa's model, whose tokens are bytes: none is unknown
BYTE_LEVEL_BPE: Component = {
    "unk_token": None,
    "continuing_subword_prefix": "",
    "end_of_word_suffix": "",
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


@dataclass(frozen=True)
class TokenizerClass:
    """A class of transformers whose ``tokenizer.json`` has one of the `models`.

    `build` returns the normalizer, pre-tokenizer, post-processor and settings of the model that transformers 5 builds
    for the settings of tokenizer_config.json, the special tokens of a vocabulary and a document; it has no such
    function for a class that uses the document unchanged.
    """

    special_tokens: Mapping[str, str]  #: role -> token, where no file names another
    models: tuple[str, ...]
    build: Callable[[JsonValue, Vocabulary, Component], Component] | None = None
    extra_tokens: tuple[str, ...] = ()  #: other special tokens, where no file names any


def bert_options(config: JsonValue) -> TokenizerOptions:
    """Read the options of BERT's normalizer from tokenizer_config.json, with the defaults of transformers."""
    strip = config.get("strip_accents")
    return TokenizerOptions(
        lower_case=config.get("do_lower_case", True).boolean(),
        strip_accents=None if strip.is_null else strip.boolean(),
        split_chinese=config.get("tokenize_chinese_chars", True).boolean(),
    )


def _build_bert(config: JsonValue, vocabulary: Vocabulary, document: Component) -> Component:
    return {
        "normalizer": bert_normalizer(bert_options(config)),
        "pre_tokenizer": BERT_PRE_TOKENIZER,
        "post_processor": bert_template(vocabulary),
        "model": {"unk_token": vocabulary.special_tokens["unk"], "max_input_chars_per_word": MAX_WORD},
    }


def _build_mpnet(config: JsonValue, vocabulary: Vocabulary, document: Component) -> Component:
    return {
        **_build_bert(config, vocabulary, document),
        "post_processor": _roberta_processor(vocabulary, trim_offsets=True, add_prefix_space=False),
    }


def _build_roberta(config: JsonValue, vocabulary: Vocabulary, document: Component) -> Component:
    space = config.get("add_prefix_space", False).boolean()
    trim = config.get("trim_offsets", True).boolean()
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": True},
        "post_processor": _roberta_processor(vocabulary, trim, space),
        "model": BYTE_LEVEL_BPE,
    }


def _build_xlm_roberta(config: JsonValue, vocabulary: Vocabulary, document: Component) -> Component:
    start, end = (_special(vocabulary, role, 0) for role in ("bos", "eos"))
    first, second = ({"Sequence": {"id": text, "type_id": 0}} for text in "AB")
    return {
        "normalizer": _precompiled(document),
        "pre_tokenizer": _words_with_spaces(config),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, first, end],
            "pair": [start, first, end, end, second, end],
            "special_tokens": _template_tokens(vocabulary, "bos", "eos"),
        },
        "model": {"unk_id": vocabulary.special_ids["unk"], "byte_fallback": False},
    }


def _build_albert(config: JsonValue, vocabulary: Vocabulary, document: Component) -> Component:
    steps: list[Component] = [
        {"type": "Replace", "pattern": {"String": quotes}, "content": '"'} for quotes in ("``", "''")
    ]
    if not config.get("keep_accents", False).boolean():
        steps += [{"type": "NFKD"}, {"type": "StripAccents"}]
    if config.get("do_lower_case", True).boolean():
        steps.append({"type": "Lowercase"})
    precompiled = _precompiled(document)
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*steps, *([precompiled] if precompiled else [])]},
        "pre_tokenizer": _words_with_spaces(config),
        "post_processor": bert_template(vocabulary),
        "model": {"unk_id": 1, "byte_fallback": False},
    }


def _words_with_spaces(config: JsonValue) -> Component:
    """Return SentencePiece's pre-tokenizer: words, each of which begins with a space."""
    scheme = "always" if config.get("add_prefix_space", True).boolean() else "never"
    spaces = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": scheme, "split": True}
    return {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, spaces]}


def _precompiled(document: Component) -> Component | None:
    """Return the normalizer of a document that has SentencePiece's table of characters, if there is one."""
    steps = _steps(document.get("normalizer"))
    return next((step for step in steps if isinstance(step, dict) and step.get("type") == "Precompiled"), None)


def _roberta_processor(vocabulary: Vocabulary, trim_offsets: bool, add_prefix_space: bool) -> Component:
    sep, cls = ([vocabulary.special_tokens[role], vocabulary.special_ids[role]] for role in ("sep", "cls"))
    return {
        "type": "RobertaProcessing",
        "sep": sep,
        "cls": cls,
        "trim_offsets": trim_offsets,
        "add_prefix_space": add_prefix_space,
    }


def _special(vocabulary: Vocabulary, role: str, token_type: int) -> Component:
    return {"SpecialToken": {"id": vocabulary.special_tokens[role], "type_id": token_type}}


def _template_tokens(vocabulary: Vocabulary, *roles: str) -> Component:
    tokens = {vocabulary.special_tokens[role]: vocabulary.special_ids[role] for role in roles}
    return {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in tokens.items()}


_BERT = TokenizerClass(BERT_TOKENS, ("WordPiece",), _build_bert)
_NOT_USED = ("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED")
#: class, without the suffix Fast -> its rule
CLASSES = {
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": _BERT,
    "ElectraTokenizer": _BERT,
    "MobileBertTokenizer": _BERT,
    "MPNetTokenizer": TokenizerClass({**_ROBERTA_TOKENS, "unk": "[UNK]"}, ("WordPiece",), _build_mpnet),
    "RobertaTokenizer": TokenizerClass(_ROBERTA_TOKENS, ("BPE",), _build_roberta),
    "XLMRobertaTokenizer": TokenizerClass(_ROBERTA_TOKENS, ("Unigram",), _build_xlm_roberta),
    "CamembertTokenizer": TokenizerClass(_ROBERTA_TOKENS, ("Unigram",), _build_xlm_roberta, _NOT_USED),
    "AlbertTokenizer": TokenizerClass(
        {**BERT_TOKENS, "bos": "[CLS]", "eos": "[SEP]", "unk": "<unk>", "pad": "<pad>"}, ("Unigram",), _build_albert
    ),
    # They use tokenizer.json unchanged.
    "PreTrainedTokenizer": TokenizerClass({}, MODELS),
    "TokenizersBackend": TokenizerClass({}, MODELS),
}
#: model_type -> the class that transformers takes where no file names one
CLASS_OF_MODEL = {
    "albert": "AlbertTokenizer",
    "camembert": "CamembertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}


def find_differences(document: JsonValue, built: Component) -> list[str]:
    """List the parts of a document that differ from those that a class builds."""
    model = {key: document["model"].get(key).raw for key in built["model"]}
    processors = (document["post_processor"], JsonValue(built["post_processor"], document.where))
    same = {
        "normalizer": _simplified(document["normalizer"].raw) == _simplified(built["normalizer"]),
        "pre_tokenizer": _simplified(document["pre_tokenizer"].raw) == _simplified(built["pre_tokenizer"]),
        "post_processor": read_template(processors[0]) == read_template(processors[1]),
        **{key: (model[key] or None) == (value or None) for key, value in built["model"].items()},
    }
    return [part for part, is_same in same.items() if not is_same]


def _simplified(component: Any) -> list[Any]:
    """Return the steps of a component, with the names that newer versions of tokenizers give to settings."""
    steps = []
    for step in _steps(component):
        if isinstance(step, dict) and step.get("type") == "Metaspace":
            prefix = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
            step = {"type": "Metaspace", "prepend_scheme": prefix, "split": step.get("split", True)}
        if isinstance(step, dict) and step.get("type") == "ByteLevel":
            step = {key: step.get(key, True) for key in ("type", "add_prefix_space", "use_regex")}
        steps.append(step)
    return steps


def _steps(component: Any) -> list[Any]:
    if component is None:
        return []
    if not isinstance(component, dict) or component.get("type") != "Sequence":
        return [component]
    inner: list[Any] = next((value for key, value in component.items() if key in ("normalizers", "pretokenizers")), [])
    return [step for element in inner for step in _steps(element)]
