"""Small files in the exact layouts of the published data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SENTENCES = (
    "the happy cat sat on the mat .",
    'the sad dog ran in " the park .',
    "a small bird flew , and the old cat slept .",
    '" the film was never good , but the story is . "',
    "the young dog was not happy !",
    "is a house red or blue ?",
)
_PARSES = "( ( the cat ) sat )\t( the dog )\t(ROOT (NP (DT the) (NN cat)))\t(ROOT (NP (DT the) (NN dog)))"
NLI = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class Layout:
    """The files of a data set: rows are made of a number, two sentences and a label, None in a test file."""

    files: dict[str, str]  #: split -> name
    header: dict[str, str]  #: split -> first line, with tabs; empty for none
    row: Callable[[int, str, str, str | None], str]
    labels: tuple[str, ...]
    repeats: dict[str, int] = field(default_factory=dict)  #: split -> columns of labels, those of annotators first
    broken: tuple[str, ...] = ()  #: further lines of train and dev that can't be read
    dropped: tuple[str, ...] = ()  #: further lines of train and dev whose label is dropped

    def lines(self, split: str) -> Iterator[str]:
        """Yield the lines of a split: six rows."""
        if self.header[split]:
            yield self.header[split]
        has_labels = split != "test" or self.header["test"] == self.header["dev"]
        for i, sentence in enumerate(SENTENCES):
            columns = [self.labels[i % len(self.labels)]] * self.repeats.get(split, 1)
            label = "\t".join(columns) if has_labels else None
            yield self.row(i, sentence, SENTENCES[-1 - i], label)
        if split != "test":
            yield from (*self.broken, *self.dropped)

    def write(self, folder: Path) -> Path:
        """Write all files into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for split, name in self.files.items():
            (folder / name).write_text("".join(f"{line}\n" for line in self.lines(split)), encoding="utf-8")
        return folder


def _tabs(*cells: object) -> str:
    return "\t".join(str(cell) for cell in cells if cell is not None)


_FILES = {split: f"{split}.tsv" for split in ("train", "dev", "test")}
_PAIR = {
    "train": "index\tsentence1\tsentence2\tlabel",
    "dev": "index\tsentence1\tsentence2\tlabel",
    "test": "index\tsentence1\tsentence2",
}
_PARSE_NAMES = "sentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
_MNLI = f"index\tpromptID\tpairID\tgenre\t{_PARSE_NAMES}\tsentence1\tsentence2"
_STS = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
_SNLI = f"gold_label\t{_PARSE_NAMES}\tsentence1\tsentence2\tcaptionID\tpairID\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5"


def _same(line: str) -> dict[str, str]:
    return dict.fromkeys(_FILES, line)


def _cola(i: int, one: str, _: str, label: str | None) -> str:
    return _tabs(i, one) if label is None else f"gj04\t{label}\t{'*' if label == '0' else ''}\t{one}"


def _mnli(split: str) -> Layout:
    def row(i: int, one: str, two: str, label: str | None) -> str:
        return _tabs(i, f"{i}n", f"{i}e", "fiction", _PARSES, one, two, label)

    return Layout(
        {"train": "train.tsv", "dev": f"dev_{split}.tsv", "test": f"test_{split}.tsv"},
        {
            "train": f"{_MNLI}\tlabel1\tgold_label",
            "dev": f"{_MNLI}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label",
            "test": _MNLI,
        },
        row,
        NLI,
        repeats={"train": 2, "dev": 6},
        broken=("6\t6n\t6e\tfiction\tthe cat",),
    )


def _mrpc(i: int, one: str, two: str, label: str | None) -> str:
    return _tabs(i if label is None else label, 100 + i, 200 + i, one, two)


def _plain(i: int, one: str, two: str, label: str | None) -> str:
    return _tabs(i, one, two, label)


def _qqp(i: int, one: str, two: str, label: str | None) -> str:
    return _tabs(i, one, two) if label is None else _tabs(i, 10 + i, 20 + i, one, two, label)


def _snli(_: int, one: str, two: str, label: str | None) -> str:
    return _tabs(label, _PARSES, one, two, "1.jpg#4", "1.jpg#4r1n", label, label, "", "", "")


LAYOUTS = {
    "cola": Layout(_FILES, {"train": "", "dev": "", "test": "index\tsentence"}, _cola, ("0", "1")),
    "sst-2": Layout(
        _FILES,
        {"train": "sentence\tlabel", "dev": "sentence\tlabel", "test": "index\tsentence"},
        lambda i, one, two, label: _tabs(i, one) if label is None else _tabs(f"{one} ", label),
        ("0", "1"),
    ),
    "mrpc": Layout(
        _FILES,
        {
            "train": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            "dev": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            "test": "index\t#1 ID\t#2 ID\t#1 String\t#2 String",
        },
        _mrpc,
        ("0", "1"),
    ),
    "sts-b": Layout(
        _FILES,
        {"train": f"{_STS}\tscore", "dev": f"{_STS}\tscore", "test": _STS},
        lambda i, one, two, score: _tabs(i, "news", "MSRpar", "2012", f"{i:04}", "none", "none", one, two, score),
        ("0.000", "2.500", "4.750", "5.000"),
        broken=("6\tnews\tMSRpar\t2012\t0006\tnone\tnone\tthe cat",),
    ),
    "qqp": Layout(
        _FILES,
        {
            "train": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            "dev": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            "test": "id\tquestion1\tquestion2",
        },
        _qqp,
        ("0", "1"),
        broken=("6\t16\t26\tis the cat", "7\t17\t27\tis the cat red ?\t\t0"),
    ),
    "mnli": _mnli("matched"),
    "mnli-mm": _mnli("mismatched"),
    "qnli": Layout(
        _FILES,
        {
            "train": "index\tquestion\tsentence\tlabel",
            "dev": "index\tquestion\tsentence\tlabel",
            "test": "index\tquestion\tsentence",
        },
        _plain,
        ("entailment", "not_entailment"),
    ),
    "rte": Layout(_FILES, _PAIR, _plain, ("entailment", "not_entailment")),
    "wnli": Layout(_FILES, _PAIR, _plain, ("0", "1")),
    "ax": Layout({"test": "AX.tsv"}, {"test": "index\tsentence1\tsentence2", "dev": ""}, _plain, NLI),
    "snli": Layout(
        {split: f"snli_1.0_{split}.txt" for split in _FILES},
        _same(_SNLI),
        _snli,
        NLI,
        dropped=(_snli(6, "the cat", "the dog", "-"),),
    ),
    "xnli": Layout(
        _FILES,
        _same("text_a\ttext_b\tlabel"),
        lambda i, one, two, label: _tabs(one, two, label),
        ("entailment", "neutral", "contradictory"),
    ),
    "lcqmc": Layout(
        _FILES, _same("text_a\ttext_b\tlabel"), lambda i, one, two, label: _tabs(one, two, label), ("0", "1")
    ),
    "chnsenticorp": Layout(_FILES, _same("label\ttext_a"), lambda i, one, two, label: _tabs(label, one), ("0", "1")),
}
