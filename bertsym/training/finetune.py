"""Fine-tuning from end to end: bundle -> graft -> fit -> verified bundle."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertsym.acceleration.graphs import to_symbol
from bertsym.bundle import Bundle, BundleContent, stage_bundle
from bertsym.devices import contexts
from bertsym.distributed.workers import ALONE, Workers
from bertsym.encoders.catalogue import FULLY_CONNECTED, LABEL_NAME, OUTPUTS
from bertsym.encoders.heads import graft, graft_for_inference, head_parameters
from bertsym.encoders.inputs import INPUT_NAMES, input_shapes
from bertsym.errors import ModelError, UsageError
from bertsym.inference.metrics import evaluate_probabilities
from bertsym.inference.predictor import Predictor
from bertsym.runtime import mx, mxnet_errors
from bertsym.signature import Tensor, bert_inputs
from bertsym.symbol.params import Array
from bertsym.text.features import Features
from bertsym.text.tables import TableFormat
from bertsym.text.tasks import TASKS, Task
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.training.batch_source import ENCODED, EncodedSource, TokenSource
from bertsym.training.checkpoints import Checkpoints, checkpoint_folder, versions
from bertsym.training.data import FinetuneData, read_data
from bertsym.training.encodings import encode
from bertsym.training.options import FinetuneOptions
from bertsym.training.progress import EpochReport, Progress, SilentProgress
from bertsym.verifier import DEFAULT_RTOL, Check, verification_record, verify_bundle

if TYPE_CHECKING:
    from bertsym.training.fit import Fit
    from bertsym.training.loop import Trainer

_Params = dict[str, Array]

_ROWS = 1024  # whose encodings a head classifies at once


@dataclass(frozen=True)
class FinetuneResult:
    """A written classifier: its bundle, the epoch that was kept, all epochs, and the comparisons it passed."""

    bundle: Bundle
    kept: EpochReport
    epochs: list[EpochReport]
    checks: list[Check]


def finetune(
    prefix: str | Path,
    train: str | Path,
    dev: str | Path,
    out: str | Path,
    *,
    task: str = "classification",
    options: FinetuneOptions = FinetuneOptions(),
    table_format: TableFormat = TableFormat(),
    checkpoint_steps: int | None = None,
    keep_checkpoints: int = 1,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    command: list[str] | None = None,
    workers: Workers = ALONE,
) -> FinetuneResult:
    """Graft a classifier onto the headless bundle at `prefix`, fit it, and write it as a bundle at `out`.

    `train` and `dev` are tables (TSV, CSV or JSON Lines); `task` is a key of ``text.tasks.TASKS``. The epoch
    with the best dev metric is kept. `progress` hears of every step and epoch; `command` is noted in the
    manifest. `workers` are those of `finetune_distributed`.

    After every epoch, and every `checkpoint_steps` steps, a checkpoint is written to ``OUT-checkpoints``. The newest
    `keep_checkpoints` stay until the bundle is there, and the encodings of a frozen encoder too. With `resume` the run
    goes on from the newest one, to the same bytes. In the main thread SIGINT, SIGTERM and SIGHUP end the run after its
    step, with a checkpoint.

    Raises UsageError, DataError, ModelError, VerificationError, or TrainingStopped after a signal; nothing is left at
    `out` then but the checkpoints, and a bundle that was there stays as it was.
    """
    for name, number in (("checkpoint_steps", checkpoint_steps), ("keep_checkpoints", keep_checkpoints)):
        if number is not None and number < 1:
            raise UsageError(f"{name} is {number}, 1 or more is needed")
    if Path(out).resolve() == Path(prefix).resolve():
        raise UsageError(f"{out} is the base itself: choose another place for the classifier")
    progress = progress or SilentProgress()
    folder = checkpoint_folder(out)
    with stage_bundle(out, force) as stage:
        if folder.exists() and not (resume or force):
            raise UsageError(f"{folder} is of a run that was stopped: --resume goes on with it, --force begins anew")
        job = prepare(prefix, train, dev, task, options, table_format, progress)
        checkpoints = Checkpoints(folder, stage.scratch, job.settings, keep_checkpoints)
        checkpoint = checkpoints.newest(progress.note) if resume else None
        if not resume:
            checkpoints.remove()
        run = job.fit(progress, workers, checkpoints, checkpoint_steps)
        if checkpoint is not None:
            run.go_on_from(checkpoint)
        run.run()
        kept = max(run.reports, key=lambda report: report.rank)
        best = job.grafted.params(run.best)
        training = {
            **job.facts,
            "workers": workers.count,
            "kept_epoch": kept.epoch,
            "dev_metrics": [report.metrics for report in run.reports],
        }
        staged = stage.write(job.grafted.content(job.task, job.data, best, {"command": command, "training": training}))
        checks = verify_bundle(staged, best, DEFAULT_RTOL, (16, 40), str(out))
        staged = stage.add_facts(staged, {"verification": verification_record(checks, DEFAULT_RTOL)})
    checkpoints.remove()
    return FinetuneResult(staged.moved_to(out), kept, run.reports, checks)


@dataclass(frozen=True)
class Job:
    """What is trained on what."""

    grafted: _Grafted
    data: FinetuneData
    task: Task
    facts: dict[str, Any]  #: for the manifest
    settings: dict[str, Any]  #: what the numbers of the run depend on, by names for messages

    def fit(
        self,
        progress: Progress,
        workers: Workers,
        checkpoints: Checkpoints | None = None,
        checkpoint_steps: int | None = None,
    ) -> Fit:
        """What trains it; raises ModelError where the workers' settings are not the same."""
        # Here, because its Module derives from a class of mxnet, which is imported late.
        from bertsym.training.fit import Fit

        for name, value in self.settings.items():
            workers.agree(name, [repr(value).encode()])
        trainer = self.grafted.trainer(self.data, progress, workers, checkpoints)
        evaluate = functools.partial(self.grafted.evaluate, self.data, self.task)
        return Fit(trainer, evaluate, checkpoints, checkpoint_steps, progress, workers)


def prepare(
    prefix: str | Path,
    train: str | Path,
    dev: str | Path,
    task: str,
    options: FinetuneOptions,
    table_format: TableFormat,
    progress: Progress,
) -> Job:
    """Read all that a `finetune` with these arguments needs, and check it."""
    if task not in TASKS:
        raise UsageError(f"task {task!r} is not one of {', '.join(TASKS)}")
    base = Bundle.open(prefix)
    _check_base(base, options)
    max_length = options.length_for(base.config.max_length)
    contexts(options.device)  # refused here if it isn't there, before anything is read
    tokenizer = base.tokenizer(_tokenizer_options(base, options), max_length)
    data = read_data(train, dev, TASKS[task], tokenizer, table_format, options.on_error, progress)
    facts = {
        "options": {**options.to_dict(), "max_length": max_length},
        "task": TASKS[task].kind,
        "dataset": TASKS[task].dataset,
        "data": {name: rows.facts() for name, rows in (("train", data.train), ("dev", data.dev))},
    }
    grafted = _Grafted(base, len(data.class_names), options, max_length)
    progress.note(grafted.describe_input())
    return Job(grafted, data, TASKS[task], facts, _settings(facts, data, base))


def _settings(facts: Mapping[str, Any], data: FinetuneData, base: Bundle) -> dict[str, Any]:
    from bertsym.training.loop import CPU_PARTS

    return {
        **facts["options"],
        "task": facts["task"],
        "dataset": facts["dataset"],
        **{f"{name} table": rows["sha256"] for name, rows in facts["data"].items()},
        "columns": f"{data.layout.columns}, {'a' if data.layout.header else 'no'} header",
        "dropped labels": ", ".join(map(repr, data.drop_labels)) or "none",
        **{f"base's {name}": entry["sha256"] for name, entry in base.manifest["files"].items()},
        "parts": CPU_PARTS,
        **versions(),
    }


def _tokenizer_options(base: Bundle, options: FinetuneOptions) -> TokenizerOptions:
    literal = base.signature.tokenizer.literal_special_tokens or options.literal_special_tokens
    return dataclasses.replace(base.signature.tokenizer, literal_special_tokens=literal)


def _check_base(base: Bundle, options: FinetuneOptions) -> None:
    signature = base.signature
    if base.has_head:
        raise ModelError(
            f"{base.prefix}: already ends in a head ({signature.kind}); fine-tune a headless bundle: one that was "
            "exported without --task, or what graft --head none makes of this one"
        )
    if base.is_folded:
        raise ModelError(
            f"{base.prefix}: folded for inference, with query, key and value as one parameter; fine-tune what it was "
            "made of, and fold the result with bertsym lower --fold"
        )
    if signature.output == "sequence" and not options.whole_sequence:
        raise UsageError(
            f"{base.prefix} ends in {signature.output_name}, the whole sequence (N, T, {base.config.units}): a "
            "classifier on it would be locked to one length; export --output cls, pooled or mean, or ask for it "
            "with --whole-sequence"
        )
    if options.whole_sequence and signature.output != "sequence":
        raise UsageError(
            f"{base.prefix} ends in {signature.output_name}: --whole-sequence needs a bundle exported with "
            "--output sequence"
        )


class _Grafted:
    """The symbols of a base with a head grafted on, and their initial parameters."""

    def __init__(self, base: Bundle, num_classes: int, options: FinetuneOptions, max_length: int) -> None:
        self._base, self._options, self._max_length = base, options, max_length
        self._settings: dict[str, Any] = {
            "num_classes": num_classes,
            "dropout": options.dropout,
            "whole_sequence": options.whole_sequence,
        }
        #: the only length that the graph takes, if it is locked to one
        self.length = max_length if options.whole_sequence else None
        with mxnet_errors(str(base.prefix)):
            self._symbol = to_symbol(base.graph())
        self._train_symbol = graft(self._symbol, **self._settings)
        self._inference_symbol = graft_for_inference(self._symbol, **self._settings)
        self._base_params = base.params()
        self._head = head_parameters(
            self._train_symbol,
            [*INPUT_NAMES, *self._base_params],
            input_shapes(1, self.length or 1),
            options.seed,
        )
        self._pad_id = base.signature.pad_id

    def describe_input(self) -> str:
        """What the classifier reads: the question that it all began with."""
        signature, units = self._base.signature, self._base.config.units
        reads = f"{FULLY_CONNECTED} reads {signature.output_name}, {OUTPUTS[signature.output]}: "
        if self.length is None:
            return f"{reads}{units} values"
        width = self._head[f"{FULLY_CONNECTED}_weight"].shape[1]
        return f"{reads}{self.length} x {units} = {width} values, so it takes no other length than {self.length}"

    def trainer(
        self, data: FinetuneData, progress: Progress, workers: Workers, checkpoints: Checkpoints | None
    ) -> Trainer:
        """What trains the whole graph, or the head on the encodings of a frozen encoder."""
        from bertsym.training.loop import Trainer

        rows = data.train
        if not self._options.freeze_encoder:
            source = TokenSource(
                rows.features, rows.classes, self._base.config, self._pad_id, self._max_length, self.length
            )
            return Trainer(self._train_symbol, {**self._base_params, **self._head}, source, self._options, workers)
        predictor = self._predictor(self._symbol)
        predictor.set_params(self._base_params)

        def encodings_of(name: str, features: Features) -> Array:
            def compute() -> Array:
                progress.note(f"encoder frozen: computing its output for the {len(features)} rows of {name} once")
                return encode(predictor, features)

            if checkpoints is None:
                return compute()
            shape = (*([self.length] if self.length else []), self._base.config.units)
            return checkpoints.kept_array(f"{name}-encodings", (len(features), *shape), compute)

        encodings = encodings_of("train", rows.features)
        if workers.rank == 0:
            self._dev_encodings = encodings_of("dev", data.dev.features)
        head = graft(mx.sym.var(ENCODED), **self._settings, shapes=[(ENCODED, encodings.shape)])
        return Trainer(head, self._head, EncodedSource(encodings, rows.classes), self._options, workers)

    def params(self, trained: Mapping[str, Array]) -> _Params:
        """All parameters: the trained ones, and the base's where the encoder was frozen."""
        return {name: trained[name] if name in trained else self._base_params[name] for name in self._names()}

    def _names(self) -> list[str]:
        return [*self._base_params, *self._head]

    def evaluate(self, data: FinetuneData, task: Task, trained: Mapping[str, Array]) -> dict[str, float]:
        """Metrics of the dev rows, as the written inference symbol will have them."""
        if self._options.freeze_encoder:
            probabilities = self._classify_encodings(trained)
        else:
            self._classifier.set_params(self.params(trained))
            probabilities = self._classifier(data.dev.features)
        return evaluate_probabilities(
            probabilities, data.dev.classes, data.class_names, task.metrics, task.positive_label
        )

    def _classify_encodings(self, head: Mapping[str, Array]) -> Array:
        """The head alone, on what the frozen encoder gave."""
        shapes = [(ENCODED, self._dev_encodings.shape)]
        symbol = graft_for_inference(mx.sym.var(ENCODED), **self._settings, shapes=shapes)
        arrays = {name: mx.nd.array(array) for name, array in head.items()}
        probabilities = [
            symbol.eval(mx.cpu(), **arrays, **{ENCODED: mx.nd.array(some)})[0].asnumpy()
            for some in np.array_split(self._dev_encodings, -(-len(self._dev_encodings) // _ROWS))
        ]
        return np.concatenate(probabilities)

    @functools.cached_property
    def _classifier(self) -> Predictor:
        return self._predictor(self._inference_symbol)

    def _predictor(self, symbol: Any) -> Predictor:
        device = contexts(self._options.device)
        return Predictor(symbol, self._base.config, self._pad_id, self._max_length, self.length, device)

    def content(self, task: Task, data: FinetuneData, arg_params: _Params, how: Mapping[str, Any]) -> BundleContent:
        """What is written."""
        base, manifest = self._base, self._base.manifest
        signature = dataclasses.replace(
            base.signature,
            kind="classifier",
            output_name=self._inference_symbol.list_outputs()[0],
            output_shape=("batch", len(data.class_names)),
            max_length=self._max_length,
            tokenizer=_tokenizer_options(base, self._options),
            inputs=bert_inputs(self.length),
            task=task.kind,
            dataset=task.dataset,
            class_names=data.class_names,
            label_inputs=(Tensor(LABEL_NAME, ("batch",)),),
            trained=True,
            encoder_trained=base.signature.encoder_trained or not self._options.freeze_encoder,
            pair=data.pair,
            columns=data.layout.columns,
            header=data.layout.header,
            column_names=data.layout.names,
            dropped_labels=data.drop_labels,
        )
        facts = {
            "source": manifest["source"],
            "base": {"files": manifest["files"], "command": manifest["command"]},
            "seed": self._options.seed,
            **how,
        }
        return BundleContent(
            base.config,
            signature,
            self._inference_symbol.tojson(),
            arg_params,
            base.vocabulary(),
            facts,
            self._train_symbol.tojson(),
            base.tokenizer_json(),
        )
