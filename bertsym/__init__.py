"""bertsym: export a BERT as an Apache MXNet symbol, choose what its classifier reads, fine-tune it, use it.

Every command of the command line is a function here. mxnet is imported when one of them is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bertsym.compat.imports import install_repairs

if TYPE_CHECKING:
    from bertsym.bundle import Bundle, SymbolBundle
    from bertsym.datasets.columns import Columns
    from bertsym.datasets.dataset import DataSet
    from bertsym.datasets.registry import find_dataset
    from bertsym.destinations.hugging_face import HuggingFaceResult, export_hugging_face
    from bertsym.diagnosis import DoctorResult, Finding, doctor
    from bertsym.drawing.draw import draw
    from bertsym.encoders.config import BertConfig
    from bertsym.encoders.outputs import output_symbol
    from bertsym.encoders.symbol_heads import finished_head, graft, graft_for_inference
    from bertsym.errors import (
        BertsymError,
        DataError,
        InstallationError,
        ModelError,
        TrainingStopped,
        UsageError,
        VerificationError,
    )
    from bertsym.execution.engines import using_engine, without_verification
    from bertsym.execution.sandbox import trusting
    from bertsym.exporter import ExportOptions, ExportResult, export
    from bertsym.inference.bundle_tokenizer import BundleTokenizer
    from bertsym.inference.compare import CompareResult, compare
    from bertsym.inference.embed import Embedding, EmbedOptions, EmbedResult, Encoder, embed
    from bertsym.inference.evaluate import EvaluateOptions, EvaluateResult, evaluate
    from bertsym.inference.load import load
    from bertsym.inference.predict import (
        Classifier,
        MaskFiller,
        MultilabelClassifier,
        QuestionAnswerer,
        Regressor,
        Tagger,
        TaskPredictor,
    )
    from bertsym.inspection.report import InspectResult, inspect
    from bertsym.model import Model, ModelSource, open_model
    from bertsym.onnx_export.onnx_exporter import OnnxExportResult, OnnxOptions, export_onnx
    from bertsym.quantization.quantize import QuantizeOptions, QuantizeResult, quantize
    from bertsym.reports.options import ReportOptions
    from bertsym.signature import Signature
    from bertsym.sources import Pretrained, SourceOptions, load_source
    from bertsym.sources.description import SourceDescription, describe_source
    from bertsym.surgery.bundle_options import BundleOptions
    from bertsym.surgery.diff import DiffResult, diff
    from bertsym.surgery.edit import EditResult, Edits, edit
    from bertsym.surgery.extract import extract
    from bertsym.surgery.graft import NewHead, graft_head, remove_head
    from bertsym.surgery.lower import lower
    from bertsym.surgery.result_writing import SurgeryResult
    from bertsym.symbol.graph import SymbolGraph
    from bertsym.symbol.node import Node, Output
    from bertsym.symbol.params import ParamsFile
    from bertsym.symbol.validation import allowing
    from bertsym.tasks.classification import Prediction
    from bertsym.tasks.masked_lm import MaskedWord, MaskPrediction
    from bertsym.tasks.multilabel import LabelsPrediction
    from bertsym.tasks.options import TaskOptions
    from bertsym.tasks.qa import Answer, QuestionPrediction
    from bertsym.tasks.regression import ValuePrediction
    from bertsym.tasks.tag_prediction import EntitySpan, TagPrediction
    from bertsym.text.alignment import Alignment
    from bertsym.text.features import Features
    from bertsym.text.table_format import TableFormat
    from bertsym.text.tokenizer import Encoded
    from bertsym.training.distributed_finetune import finetune_distributed
    from bertsym.training.finetune import FinetuneResult, finetune
    from bertsym.training.finetune_options import CheckpointOptions, FinetuneOptions
    from bertsym.verifier import verify

install_repairs()

_HOME = {
    "BertConfig": "encoders.config",
    "finished_head": "encoders.symbol_heads",
    "graft": "encoders.symbol_heads",
    "graft_for_inference": "encoders.symbol_heads",
    "output_symbol": "encoders.outputs",
    "Bundle": "bundle",
    "SymbolBundle": "bundle",
    "HuggingFaceResult": "destinations.hugging_face",
    "export_hugging_face": "destinations.hugging_face",
    "DoctorResult": "diagnosis",
    "Finding": "diagnosis",
    "doctor": "diagnosis",
    "draw": "drawing.draw",
    "BertsymError": "errors",
    "DataError": "errors",
    "InstallationError": "errors",
    "ModelError": "errors",
    "TrainingStopped": "errors",
    "UsageError": "errors",
    "VerificationError": "errors",
    "ExportResult": "exporter",
    "export": "exporter",
    "BundleTokenizer": "inference.bundle_tokenizer",
    "EmbedOptions": "inference.embed",
    "EmbedResult": "inference.embed",
    "Embedding": "inference.embed",
    "Encoder": "inference.embed",
    "embed": "inference.embed",
    "CompareResult": "inference.compare",
    "compare": "inference.compare",
    "EvaluateResult": "inference.evaluate",
    "ExportOptions": "exporter",
    "EvaluateOptions": "inference.evaluate",
    "evaluate": "inference.evaluate",
    "load": "inference.load",
    "Classifier": "inference.predict",
    "MaskFiller": "inference.predict",
    "MultilabelClassifier": "inference.predict",
    "Regressor": "inference.predict",
    "TaskPredictor": "inference.predict",
    "Tagger": "inference.predict",
    "Prediction": "tasks.classification",
    "MaskPrediction": "tasks.masked_lm",
    "MaskedWord": "tasks.masked_lm",
    "LabelsPrediction": "tasks.multilabel",
    "TaskOptions": "tasks.options",
    "ValuePrediction": "tasks.regression",
    "EntitySpan": "tasks.tag_prediction",
    "TagPrediction": "tasks.tag_prediction",
    "QuestionAnswerer": "inference.predict",
    "Answer": "tasks.qa",
    "QuestionPrediction": "tasks.qa",
    "InspectResult": "inspection.report",
    "inspect": "inspection.report",
    "Model": "model",
    "ModelSource": "model",
    "open_model": "model",
    "OnnxExportResult": "onnx_export.onnx_exporter",
    "OnnxOptions": "onnx_export.onnx_exporter",
    "export_onnx": "onnx_export.onnx_exporter",
    "QuantizeResult": "quantization.quantize",
    "QuantizeOptions": "quantization.quantize",
    "quantize": "quantization.quantize",
    "ReportOptions": "reports.options",
    "Signature": "signature",
    "Pretrained": "sources",
    "SourceOptions": "sources",
    "load_source": "sources",
    "SourceDescription": "sources.description",
    "describe_source": "sources.description",
    "DiffResult": "surgery.diff",
    "diff": "surgery.diff",
    "EditResult": "surgery.edit",
    "BundleOptions": "surgery.bundle_options",
    "Edits": "surgery.edit",
    "edit": "surgery.edit",
    "extract": "surgery.extract",
    "NewHead": "surgery.graft",
    "graft_head": "surgery.graft",
    "remove_head": "surgery.graft",
    "lower": "surgery.lower",
    "SurgeryResult": "surgery.result_writing",
    "SymbolGraph": "symbol.graph",
    "Node": "symbol.node",
    "Output": "symbol.node",
    "ParamsFile": "symbol.params",
    "allowing": "symbol.validation",
    "Alignment": "text.alignment",
    "Features": "text.features",
    "TableFormat": "text.table_format",
    "Encoded": "text.tokenizer",
    "Columns": "datasets.columns",
    "DataSet": "datasets.dataset",
    "find_dataset": "datasets.registry",
    "FinetuneResult": "training.finetune",
    "finetune": "training.finetune",
    "finetune_distributed": "training.distributed_finetune",
    "trusting": "execution.sandbox",
    "CheckpointOptions": "training.finetune_options",
    "using_engine": "execution.engines",
    "without_verification": "execution.engines",
    "FinetuneOptions": "training.finetune_options",
    "verify": "verifier",
}

__all__ = [
    "Alignment",
    "Answer",
    "BertConfig",
    "BertsymError",
    "Bundle",
    "BundleOptions",
    "BundleTokenizer",
    "CheckpointOptions",
    "Classifier",
    "Columns",
    "CompareResult",
    "DataError",
    "DataSet",
    "DiffResult",
    "DoctorResult",
    "EditResult",
    "Edits",
    "EmbedOptions",
    "EmbedResult",
    "Embedding",
    "Encoded",
    "Encoder",
    "EntitySpan",
    "EvaluateOptions",
    "EvaluateResult",
    "ExportOptions",
    "ExportResult",
    "Features",
    "Finding",
    "FinetuneOptions",
    "FinetuneResult",
    "HuggingFaceResult",
    "InspectResult",
    "InstallationError",
    "LabelsPrediction",
    "MaskFiller",
    "MaskPrediction",
    "MaskedWord",
    "Model",
    "ModelError",
    "ModelSource",
    "MultilabelClassifier",
    "NewHead",
    "Node",
    "OnnxExportResult",
    "OnnxOptions",
    "Output",
    "ParamsFile",
    "Prediction",
    "Pretrained",
    "QuantizeOptions",
    "QuantizeResult",
    "QuestionAnswerer",
    "QuestionPrediction",
    "Regressor",
    "ReportOptions",
    "Signature",
    "SourceDescription",
    "SourceOptions",
    "SurgeryResult",
    "SymbolBundle",
    "SymbolGraph",
    "TableFormat",
    "TagPrediction",
    "Tagger",
    "TaskOptions",
    "TaskPredictor",
    "TrainingStopped",
    "UsageError",
    "ValuePrediction",
    "VerificationError",
    "allowing",
    "compare",
    "describe_source",
    "diff",
    "doctor",
    "draw",
    "edit",
    "embed",
    "evaluate",
    "export",
    "export_hugging_face",
    "export_onnx",
    "extract",
    "find_dataset",
    "finetune",
    "finetune_distributed",
    "finished_head",
    "graft",
    "graft_for_inference",
    "graft_head",
    "inspect",
    "load",
    "load_source",
    "lower",
    "open_model",
    "output_symbol",
    "quantize",
    "remove_head",
    "trusting",
    "using_engine",
    "verify",
    "without_verification",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"bertsym.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
