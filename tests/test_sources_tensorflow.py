"""``tf:`` sources, on checkpoints that TensorFlow itself wrote, and on damaged ones."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import computed
from conftest import Result
from refusals import refusal

from bertsym import BertsymError, Bundle, ModelError, SourceOptions, export, load_source
from bertsym.reference import Inputs, encoder_outputs
from bertsym.sources.crc32c import crc32c, unmask
from bertsym.sources.tensor_bundle import TensorBundle

Cli = Callable[..., Result]

CHECKPOINTS = Path(__file__).parent / "tensorflow_checkpoints"
PREFIXES = {"pretrained": "bert_model.ckpt", "classifier": "model.ckpt-343", "squad": "model.ckpt-21"}
HEADS = {"pretrained": "masked_lm", "classifier": "classification", "squad": "qa"}


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A copy of the folder of a fine-tuned classifier."""
    return Path(shutil.copytree(CHECKPOINTS / "classifier", tmp_path / "classifier"))


def expected(kind: str) -> dict[str, np.ndarray[Any, Any]]:
    """What TensorFlow computed."""
    return {
        name: np.array(value) for name, value in json.loads((CHECKPOINTS / kind / "expected.json").read_text()).items()
    }


@pytest.mark.parametrize("kind", PREFIXES)
def test_outputs_are_those_of_tensorflow(kind: str, tmp_path: Path) -> None:
    arrays = expected(kind)
    pretrained = load_source(f"tf:{CHECKPOINTS / kind}")
    inputs = [arrays[name] for name in ("token_ids", "token_types", "valid_length")]
    (found,) = encoder_outputs("bert", pretrained.checkpoint, [Inputs(*inputs)])
    is_token = np.arange(8) < arrays["valid_length"][:, None]
    np.testing.assert_allclose(found["sequence"][is_token], arrays["sequence"][is_token], atol=1e-5)
    np.testing.assert_allclose(found["pooled"], arrays["pooled"], atol=1e-5)

    result = export(f"tf:{CHECKPOINTS / kind}", tmp_path / "out")  # compared with the reference encoder and head
    assert result.bundle.signature.task == HEADS[kind]
    (output,) = computed(tmp_path / "out", {f"data{i}": array for i, array in enumerate(inputs)})
    rows = np.ones(2, bool) if kind == "classifier" else is_token
    np.testing.assert_allclose(output[rows], arrays["head"][rows], atol=1e-5)


def test_heads_and_variables_of_the_optimizer_are_left_out(cli: Cli, tmp_path: Path) -> None:
    pretrained = cli("export", f"tf:{CHECKPOINTS / 'pretrained'}", tmp_path / "mlm", "--no-verify")
    assert "not exported: pretraining heads cls.seq_relationship.bias, cls.seq_relationship.weight" in pretrained.out
    encoder = cli("export", f"tf:{CHECKPOINTS / 'classifier'}", tmp_path / "encoder", "--headless", "--no-verify")
    assert "not exported: task head classifier.bias, classifier.weight" in encoder.out
    assert "adam" not in encoder.out
    assert "global_step" not in encoder.out
    manifest = Bundle.open(tmp_path / "encoder").manifest
    assert set(manifest["source"]["files"]) == {
        *("bert_config.json", "vocab.txt", "model.ckpt-343.index", "model.ckpt-343.data-00000-of-00001"),
    }


def test_the_prefix_of_a_checkpoint_names_it_where_a_folder_has_several(classifier: Path) -> None:
    for name in ("model.ckpt-9.index", "model.ckpt-9.data-00000-of-00001"):
        shutil.copy(classifier / name.replace("-9", "-343"), classifier / name)
    with pytest.raises(ModelError, match=r"2 checkpoints, .*; choose one, such as"):
        load_source(f"tf:{classifier}")
    for name in ("model.ckpt-9", "model.ckpt-9.index", "model.ckpt-9.data-00000-of-00001"):
        assert load_source(f"tf:{classifier / name}").has_pooler


def test_texts_are_lower_cased_unless_the_vocabulary_has_capitals_or_an_option_is_given(classifier: Path) -> None:
    assert load_source(f"tf:{classifier}").tokenizer.lower_case
    assert not load_source(f"tf:{classifier}", SourceOptions(lower_case=False)).tokenizer.lower_case
    vocab = classifier / "vocab.txt"
    vocab.rename(classifier / "cased.txt")
    (classifier / "cased.txt").write_text((classifier / "cased.txt").read_text().replace("the", "The"))
    assert not load_source(f"tf:{classifier}", SourceOptions(vocab=str(classifier / "cased.txt"))).tokenizer.lower_case


def test_labels_name_the_classes_of_a_classifier(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    source = f"tf:{classifier}"
    head = load_source(source, SourceOptions(labels=("a", "b", "c")), with_head=True).head
    assert head is not None
    assert (head.class_names, head.notes) == (("a", "b", "c"), ())
    for arguments, message in (
        ((source, "--labels", "a,b"), "the head has 3 outputs"),
        ((source, "--labels", "a,b,c", "--headless"), "which is not exported: omit --labels"),
        ((f"tf:{CHECKPOINTS / 'squad'}", "--labels", "a,b"), "no head whose outputs are classes"),
    ):
        refused = cli("export", arguments[0], tmp_path / "x", *arguments[1:])
        assert message in refusal(refused, tmp_path / "x-symbol.json", code=2)


def test_damaged_and_incomplete_checkpoints_are_refused_in_one_line(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    data, index = (classifier / f"model.ckpt-343.{end}" for end in ("data-00000-of-00001", "index"))
    original = {path: path.read_bytes() for path in (data, index, classifier / "bert_config.json")}
    config = json.loads(original[classifier / "bert_config.json"])

    def refused(path: Path, content: bytes | None) -> str:
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        line = refusal(cli("export", f"tf:{classifier}", tmp_path / "out"), tmp_path / "out-symbol.json")
        path.write_bytes(original[path])
        return line

    content = original[data]
    assert "model.ckpt-343.data-00000-of-00001: damaged or truncated" in refused(data, content[:-1])
    assert "the checksum of bert/" in refused(data, bytes([content[0] ^ 1]) + content[1:])
    assert "data-00000-of-00001: no such file" in refused(data, None)
    assert "model.ckpt-343.index: damaged or truncated" in refused(index, original[index][:-1])
    assert "model.ckpt-343.index: damaged or truncated" in refused(index, b"")
    assert "not a TensorFlow checkpoint: no bert_model.ckpt.index" in refused(index, None)
    assert "a Git LFS pointer" in refused(index, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")
    assert "copy it from the pretrained model" in refused(classifier / "bert_config.json", None)
    wider = json.dumps({**config, "hidden_size": 24}).encode()
    assert "the config implies (15, 24)" in refused(classifier / "bert_config.json", wider)
    assert "gelu_fast" in refused(
        classifier / "bert_config.json", json.dumps({**config, "hidden_act": "gelu_fast"}).encode()
    )


def test_every_flipped_bit_of_an_index_is_found(classifier: Path) -> None:
    index = classifier / "model.ckpt-343.index"
    content = index.read_bytes()
    read = {name: array.tolist() for name, array in TensorBundle(classifier / "model.ckpt-343").items()}
    for place in range(0, len(content), 5):
        index.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            found = TensorBundle(classifier / "model.ckpt-343")
        except ModelError:
            continue
        assert place >= len(content) - 48  # in the padding of the footer
        assert {name: array.tolist() for name, array in found.items()} == read


# --- indexes with valid checksums and hostile content ---


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def masked(content: bytes) -> int:
    value = crc32c(content)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def entry(shape: tuple[int, ...] = (2,), size: int = 8, **others: int) -> bytes:
    """A BundleEntryProto of float32 elements 0, 0."""
    dims = b"".join(field(2, field(1, length)) for length in shape)
    fields = {"dtype": 1, "shard": 0, "offset": 0, **others}
    numbers = field(1, fields["dtype"]) + field(2, dims) + field(3, fields["shard"]) + field(4, fields["offset"])
    return numbers + field(5, size) + varint(6 << 3 | 5) + struct.pack("<I", masked(bytes(8)))


def block(entries: Mapping[bytes, bytes], compression: int = 0) -> bytes:
    content = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries.items()
    )
    content += struct.pack("<II", 0, 1) + bytes([compression])
    return content + struct.pack("<I", masked(content))


def write(folder: Path, entries: Mapping[bytes, bytes], compression: int = 0) -> Path:
    """Write a checkpoint whose data is 8 zero bytes."""
    body = block(entries, compression)
    top = block({b"zzzz": varint(0) + varint(len(body) - 5)})
    meta = block({})
    footer = varint(len(body)) + varint(len(meta) - 5)
    footer += varint(len(body + meta)) + varint(len(top) - 5)
    (folder / "x.index").write_bytes(
        body + meta + top + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    )
    (folder / "x.data-00000-of-00001").write_bytes(bytes(8))
    return folder / "x"


HEADER = field(1, 1)


def test_a_written_index_is_read(tmp_path: Path) -> None:
    found = TensorBundle(write(tmp_path, {b"": HEADER, b"a": entry(), b"b": entry((), 8, dtype=9)}))
    assert {name: array.tolist() for name, array in found.items()} == {"a": [0, 0], "b": 0}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({b"a": entry()}, "it has no header"),
        ({b"": field(1, 1 << 40)}, "files of data"),
        ({b"": HEADER + field(2, 1)}, "big-endian"),
        ({b"": HEADER, b"b": entry(), b"a": entry()}, "not sorted"),
        ({b"": HEADER, b"\xff": entry()}, "not UTF-8"),
        ({b"": HEADER, b"a" * 2000: entry()}, "a name of 2000 bytes"),
        ({b"": HEADER, b"a": entry((3,))}, r"a of shape \(3,\) has 8 bytes, not 12"),
        ({b"": HEADER, b"a": entry((1 << 62, 1 << 62))}, "a tensor of the shape"),
        ({b"": HEADER, b"a": entry((0, 1 << 62), 0)}, "a tensor of the shape"),
        ({b"": HEADER, b"a": entry((1,) * 40, 4)}, "a tensor of the shape"),
        ({b"": HEADER, b"a": entry(offset=1)}, "a ends at byte 9, the file at 8"),
        ({b"": HEADER, b"a": entry(shard=1)}, "a is in file 1 of 1"),
        ({b"": HEADER, b"a": entry()[:-2]}, "4 bytes are needed where 2 are left"),
        ({b"": HEADER, b"a": b"\xff" * 12}, "more than 64 bits"),
        ({b"": HEADER, b"a": b"\x0b"}, "a field of the kind 3"),
    ],
)
def test_hostile_indexes_are_refused(tmp_path: Path, entries: dict[bytes, bytes], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        TensorBundle(write(tmp_path, entries))


def test_compressed_blocks_and_unsupported_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="compressed blocks are not supported"):
        TensorBundle(write(tmp_path, {b"": HEADER}, compression=1))
    sliced = entry() + field(7, b"")
    found = TensorBundle(write(tmp_path, {b"": HEADER, b"sliced": sliced, b"text": entry(dtype=7)}))
    for name in found:
        with pytest.raises(BertsymError, match=f"x.index: {name} is .* not supported"):
            found[name]


def test_crc32c_agrees_with_published_values_and_with_the_definition() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the catalogues
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert unmask(masked(b"a")) == crc32c(b"a")
    content = np.random.default_rng(0).integers(0, 256, 40_000, dtype=np.uint8)
    for length in (255, 256, 16_383, 16_384, 33_000):
        state = 0xFFFFFFFF
        for byte in content[:length].tolist():
            state ^= byte
            for _ in range(8):
                state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
        assert crc32c(content[:length]) == state ^ 0xFFFFFFFF
