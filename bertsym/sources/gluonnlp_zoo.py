"""BERT models of GluonNLP 0.10's zoo, downloaded, checked and loaded by gluonnlp itself."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertsym.encoders.config import BertConfig
from bertsym.errors import ModelError, UsageError
from bertsym.sources.mapping import map_weights, resolve_names
from bertsym.sources.pretrained import Pretrained
from bertsym.sources.slow_tokenizers.bertsp_tokenizer import VocabularyTokenizer, convert_gluonnlp
from bertsym.sources.weight_names import GLUONNLP_STRUCTURED
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.vocabulary import Vocabulary
from bertsym.text.wordpiece import bert_document

#: model -> its data sets, for the BERT models of GluonNLP 0.10's zoo
ZOO = {
    "bert_12_768_12": (
        "book_corpus_wiki_en_uncased",
        "book_corpus_wiki_en_cased",
        "openwebtext_book_corpus_wiki_en_uncased",
        "wiki_multilingual_uncased",
        "wiki_multilingual_cased",
        "wiki_cn_cased",
        "scibert_scivocab_uncased",
        "scibert_scivocab_cased",
        "scibert_basevocab_uncased",
        "scibert_basevocab_cased",
        "biobert_v1.0_pmc_cased",
        "biobert_v1.0_pubmed_cased",
        "biobert_v1.0_pubmed_pmc_cased",
        "biobert_v1.1_pubmed_cased",
        "clinicalbert_uncased",
        "kobert_news_wiki_ko_cased",
    ),
    "bert_24_1024_16": ("book_corpus_wiki_en_uncased", "book_corpus_wiki_en_cased"),
}
_SENTENCEPIECE = ("kobert_news_wiki_ko_cased",)


def load_zoo(name: str, cache: str | None = None) -> Pretrained:
    """Load ``MODEL/DATASET`` of the zoo from gluonnlp's cache folder, or download it.

    With `cache` None, the folder is ``$MXNET_HOME/models``. Raises UsageError for an unknown name, with the known
    names, and ModelError when the model cannot be loaded.
    """
    model, _, dataset = name.partition("/")
    if dataset not in ZOO.get(model, ()):
        known = [f"{known_model}/{known_dataset}" for known_model, sets in ZOO.items() for known_dataset in sets]
        raise UsageError(f"gluonnlp:{name} is not a BERT of GluonNLP's zoo; known are {', '.join(known)}")
    from bertsym.mxnet_runtime import nlp

    root = cache or os.path.join(nlp.base.get_home_dir(), "models")
    try:
        with _download_progress(), contextlib.redirect_stdout(io.StringIO()):
            net, vocab = nlp.model.get_model(
                model, dataset_name=dataset, root=root, use_decoder=False, use_classifier=False
            )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"gluonnlp:{name}: gluonnlp can't load it (cache folder {root}): {reason}") from None
    weights = {name: parameter.data().asnumpy() for name, parameter in net._collect_params_with_prefix().items()}
    config = _config_of(net, len(vocab))
    names = resolve_names(weights, GLUONNLP_STRUCTURED, f"gluonnlp:{name}")
    arg_params = map_weights(weights, names, config)
    vocabulary = Vocabulary(tuple(vocab.idx_to_token))
    options = TokenizerOptions(lower_case=not dataset.endswith("_cased"))
    if dataset in _SENTENCEPIECE:
        # gluonnlp has made the vocabulary of this file, whose digest it checks.
        file, suffix, *_ = nlp.data.utils._get_vocab_tokenizer_info(dataset, root)
        tokenizer = convert_gluonnlp(Path(root, file + suffix), vocabulary, options.lower_case)
    else:
        tokenizer = VocabularyTokenizer(vocabulary, options, bert_document(vocabulary, options))
    sha1 = nlp.model.bert.model_store._model_sha1[f"{model}_{dataset}"]
    return Pretrained(
        config,
        arg_params,
        tokenizer.vocabulary,
        tokenizer.options,
        tokenizer.document,
        {"kind": "gluonnlp", "pretrained": True, "sha1": sha1},
        names.checkpoint(weights, config.to_dict()),
    )


def _config_of(net: Any, vocab_size: int) -> BertConfig:
    """Read the config of a gluonnlp BERTModel from its blocks."""
    encoder = net.encoder
    cell = encoder.transformer_cells[0]
    return BertConfig(
        num_layers=len(encoder.transformer_cells),
        units=encoder._units,
        hidden_size=cell.ffn.ffn_1._units,
        num_heads=cell.attention_cell._num_heads,
        vocab_size=vocab_size,
        max_length=encoder._max_length,
        dropout=encoder._dropout,
        attention_dropout=encoder._dropout,
        layer_norm_eps=encoder._layer_norm_eps,
    )


@contextlib.contextmanager
def _download_progress() -> Iterator[None]:
    """Show a progress bar while mxnet downloads; mxnet itself shows none."""
    import mxnet.gluon.utils as gluon_utils
    from tqdm import tqdm

    original = gluon_utils.requests

    class WithProgress:
        """The requests module, with a ``get`` that reports the bytes as they arrive."""

        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

        def get(self, url: str, **options: Any) -> Any:
            response = original.get(url, **options)
            total = int(response.headers.get("content-length", 0)) or None
            chunks = response.iter_content

            def iter_content(chunk_size: int) -> Iterator[bytes]:
                label = url.rsplit("/", 1)[-1]
                # mxnet asks for 1 KiB at a time; larger chunks are faster.
                with tqdm(total=total, unit="B", unit_scale=True, desc=label) as bar:
                    for chunk in chunks(chunk_size=max(chunk_size, 1 << 16)):
                        bar.update(len(chunk))
                        yield chunk

            response.iter_content = iter_content
            return response

    gluon_utils.requests = WithProgress()
    try:
        yield
    finally:
        gluon_utils.requests = original
