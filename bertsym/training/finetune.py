"""Fine-tuning from end to end: open a bundle, graft a head, train, evaluate, write a verified bundle."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from bertsym.bundle import Bundle, BundleContent, stage_bundle
from bertsym.encoders.catalogue import TRAINED_HEADS
from bertsym.errors import UsageError
from bertsym.events import (
    BestKept,
    EventStream,
    Listener,
    SeedStarted,
    Verified,
    Written,
    instant,
    now,
    since,
)
from bertsym.inference.engine_predictor import open_predictor, predictor_settings
from bertsym.metrics.classification import format_metrics
from bertsym.model_card.card import model_card
from bertsym.reports.evaluation import EvaluatedModel
from bertsym.reports.options import ReportOptions
from bertsym.reports.training import Trained, TrainingCurves, training_report
from bertsym.reports.writing import check_report, write_report
from bertsym.signature import bert_inputs
from bertsym.training.checkpoints import Checkpoint, Checkpoints, checkpoint_folder
from bertsym.training.evaluation_report import EvaluationReport
from bertsym.training.finetune_inputs import (
    FinetuneFiles,
    FinetuneInputs,
    FinetuneRequest,
    build_inputs,
    load_files,
    tokenizer_options,
)
from bertsym.training.finetune_options import CheckpointOptions, FinetuneOptions
from bertsym.training.seeds import SeedRuns
from bertsym.training.trainable_models import FrozenEncoderModel, FullModel, Params, TrainableModel
from bertsym.training.trainer import Trainer
from bertsym.training.training_run import TrainingResult, TrainingRun
from bertsym.verifier import DEFAULT_RTOL, Check, verification_record, verify_bundle


@dataclass(frozen=True)
class FinetuneResult:
    """A written classifier: its bundle, the evaluation of what was kept, all evaluations, and the comparisons."""

    bundle: Bundle
    kept: EvaluationReport
    evaluations: list[EvaluationReport]
    checks: list[Check]
    seeds: SeedRuns | None = None  #: the metrics of all seeds, where there are several


def finetune(
    prefix: str | Path,
    train: str | Path,
    dev: str | Path | None,
    out: str | Path,
    *,
    options: FinetuneOptions = FinetuneOptions(),
    checkpoints: CheckpointOptions = CheckpointOptions(),
    on_event: Listener = lambda event: None,
    force: bool = False,
) -> FinetuneResult:
    """Graft a classifier onto a headless bundle, train it, and write it as a bundle.

    The parameters with the best dev metric are kept. A checkpoint is written to ``OUT-checkpoints`` after every epoch;
    the folder is removed once the bundle is written. A resumed run writes the same bytes as an uninterrupted one. In
    the main thread SIGINT, SIGTERM and SIGHUP stop the run after its current step, with a checkpoint.

    With several ``options.seeds`` the run is repeated with each, one after the other, and the bundle has the parameters
    of the seed with the best dev metric, ties to the lower loss. Their checkpoints are in ``OUT-checkpoints/seed-N``.

    Args:
        prefix: The bundle to train.
        train: The training table: TSV, CSV or JSON Lines.
        dev: The table that decides which parameters are kept; None with `dev_fraction`.
        out: Prefix of the bundle to write.
        options: Hyperparameters, task and table format.
        checkpoints: When to write checkpoints, how many to keep, and whether to resume.
        on_event: Called with every event of the run: steps, epochs, evaluations and others of `bertsym.events`.
        force: Overwrite a bundle at `out`, and discard the checkpoints of an earlier run.

    Raises:
        InstallationError: A report is to be written, and matplotlib is missing.
        UsageError, DataError, ModelError, VerificationError: No bundle is written; an existing one is unchanged.
        TrainingStopped: A signal was received.
    """
    request = FinetuneRequest(prefix, train, dev, options, EventStream(on_event))
    return train_and_write(request, out, checkpoints, force)


def train_and_write(
    request: FinetuneRequest, out: str | Path, options: CheckpointOptions, force: bool
) -> FinetuneResult:
    """Run `finetune` as the only worker, or as the first of several."""
    if Path(out).resolve() == Path(request.prefix).resolve():
        raise UsageError(f"{out} is the bundle to train: choose another prefix for the classifier")
    report = request.options.report
    check_report(report)
    curves = TrainingCurves()
    if report is not None:
        request = dataclasses.replace(request, events=EventStream(request.events, curves))
    folder = checkpoint_folder(out)
    events = request.events
    with stage_bundle(out, force) as stage:
        if folder.exists() and not (options.resume or force):
            raise UsageError(
                f"{folder} holds checkpoints of a stopped run: continue it with --resume, or start over with --force"
            )
        best, seeds = _train_seeds(request, folder, stage.scratch, options)
        kept = best.result.best
        events(BestKept(instant(), kept.epoch, kept.epochs, kept.step, best.request.options.seed, kept.metrics))
        started = now()
        content = _bundle_content(best.request, best.inputs, best.params, best.result, seeds)
        staged = stage.write(content)
        verifying = now()
        checks = verify_bundle(staged, best.params, DEFAULT_RTOL, (16, 40), str(out))
        if checks:
            worst = max(checks, key=lambda check: check.relative_difference)
            events(Verified(since(verifying), " ".join(str(worst).split()), worst.relative_difference))
        staged = stage.add_facts(staged, {"verification": verification_record(checks, DEFAULT_RTOL)})
        staged = stage.add_card(staged, model_card(staged))
    shutil.rmtree(folder, ignore_errors=True)
    bundle = staged.moved_to(out)
    events(Written(since(started), str(out), bundle.digests()))
    if report is not None:
        _write_report(report, bundle, best, seeds, curves)
    return FinetuneResult(bundle, best.result.best, best.result.evaluations, checks, seeds)


def _write_report(
    options: ReportOptions, bundle: Bundle, best: _Trained, seeds: SeedRuns | None, curves: TrainingCurves
) -> None:
    """Write a report of a finished run, with the outputs of the written bundle for the dev rows."""
    data, kept = best.inputs.data, best.result.best
    outputs = open_predictor(bundle, best.request.options.device).each(data.dev.features, data.task.keep)
    metrics = data.task.evaluate(outputs, data.dev)
    settings = predictor_settings(best.request.options.device)
    model = EvaluatedModel(bundle, data.task, data.dev, outputs, metrics, data.left_out, settings)
    reached = seeds.metrics if seeds is not None else {}
    seed = best.request.options.seed
    trained = Trained(model, data.train, kept.epoch, kept.epochs, kept.step, seed, reached, curves)
    write_report(training_report(trained, options.texts), options)


@dataclass(frozen=True)
class _Trained:
    """A finished run with one seed."""

    request: FinetuneRequest
    inputs: FinetuneInputs
    params: Params
    result: TrainingResult


def _train_seeds(
    request: FinetuneRequest, folder: Path, scratch: Path, checkpoints: CheckpointOptions
) -> tuple[_Trained, SeedRuns | None]:
    """Train with each seed; return the run with the best dev metric and, of several seeds, what each reached."""
    options = request.options
    if not options.seeds:
        return _train_one(request, load_files(request), folder, scratch, checkpoints), None
    if request.workers.count > 1:
        raise UsageError("several seeds can't be trained by several workers: give --seed, or --kvstore local")
    files = load_files(request)  # the same dev rows for all seeds
    best: _Trained | None = None
    reached: dict[int, dict[str, float]] = {}
    for number, seed in enumerate(options.seeds, 1):
        request.events(SeedStarted(instant(), seed, number, len(options.seeds)))
        one = dataclasses.replace(request, options=dataclasses.replace(options, seed=seed, seeds=()))
        found = _train_one(one, files, folder / f"seed-{seed}", scratch, checkpoints)
        reached[seed] = found.result.best.metrics
        if best is None or found.result.best.rank(options.metric) > best.result.best.rank(options.metric):
            best = found
    assert best is not None
    return best, SeedRuns(reached, best.request.options.seed)


def _train_one(
    request: FinetuneRequest, files: FinetuneFiles, folder: Path, scratch: Path, options: CheckpointOptions
) -> _Trained:
    inputs = build_inputs(request, files)
    checkpoints = Checkpoints(folder, scratch, inputs.settings, options.keep_checkpoints)
    checkpoint = checkpoints.newest(request.events.note) if options.resume else None
    if not options.resume:
        checkpoints.remove()
    model, result = train_model(request, inputs, checkpoints, options.checkpoint_steps, checkpoint)
    params = model.all_params(result.params)
    inputs, result = _tuned(inputs, model, result, request.events)
    return _Trained(request, inputs, params, result)


def train_without_writing(request: FinetuneRequest) -> None:
    """Run `finetune` as one of several workers, but not the first."""
    train_model(request, build_inputs(request, load_files(request)))


def train_model(
    request: FinetuneRequest,
    inputs: FinetuneInputs,
    checkpoints: Checkpoints | None = None,
    checkpoint_steps: int | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[TrainableModel, TrainingResult]:
    """Train and evaluate all epochs, or those that remain after a checkpoint.

    Raises ModelError if the workers of a distributed run have different settings.
    """
    options, workers, events = request.options, request.workers, request.events
    data, task = inputs.data, inputs.data.task
    for name, value in inputs.settings.items():
        workers.require_equal(name, [repr(value).encode()])
    if options.freeze_encoder:
        cache = checkpoints.cached_array if checkpoints is not None else None
        model: TrainableModel = FrozenEncoderModel(inputs.model, data, events, cache, evaluates=workers.rank == 0)
    else:
        model = FullModel(inputs.model, data)

    def evaluate(trained: Params) -> dict[str, float]:
        on_rows = events.counter("evaluating", len(data.dev.features), data.dev.name)
        return task.evaluate(model.predict_dev(trained, on_rows), data.dev)

    trainer = Trainer(model.symbol, model.params, model.batches, task.loss, options, workers)
    run = TrainingRun(trainer, evaluate, data.dev, events, workers, checkpoints, checkpoint_steps)
    return model, run.run(checkpoint)


def _tuned(
    inputs: FinetuneInputs, model: TrainableModel, result: TrainingResult, events: EventStream
) -> tuple[FinetuneInputs, TrainingResult]:
    """Tune the settings of the task on the dev file; return the inputs with that task, and the result with its metrics.

    The evaluations during training are without the tuning.
    """
    data = inputs.data
    if not data.task.tunes:
        return inputs, result
    outputs = model.predict_dev(result.params)
    task = data.task.tuned(outputs, data.dev)
    best = dataclasses.replace(result.best, metrics=task.evaluate(outputs, data.dev))
    events.note(f"tuned on {data.dev.name}: {format_metrics(best.metrics)}")
    data = dataclasses.replace(data, task=task)
    return dataclasses.replace(inputs, data=data), dataclasses.replace(result, best=best)


def _bundle_content(
    request: FinetuneRequest,
    inputs: FinetuneInputs,
    params: Params,
    result: TrainingResult,
    seeds: SeedRuns | None,
) -> BundleContent:
    options, data, task, model = request.options, inputs.data, inputs.data.task, inputs.model
    base, manifest, layout = model.base, model.base.manifest, data.train.layout
    per_token = ("length",) if task.reads_tokens else ()
    signature = dataclasses.replace(
        base.signature,
        kind=TRAINED_HEADS[task.name],
        output=model.output,
        output_name=model.inference_symbol.list_outputs()[0],
        output_shape=("batch", *per_token, task.num_outputs),
        max_length=model.max_length,
        tokenizer=tokenizer_options(base, options),
        embedding=None,
        inputs=bert_inputs(model.length, base.signature.input_names, base.signature.tokenizer.segments),
        task=task.name,
        dataset=inputs.dataset.dataset,
        task_settings=task.settings(),
        class_names=task.class_names,
        label_inputs=model.label_inputs,
        trained=True,
        encoder_trained=base.signature.encoder_trained or model.trains_encoder,
        pair=data.train.pair,
        columns=layout.columns,
        header=layout.header,
        column_names=layout.names,
        dropped_labels=data.drop_labels,
    )
    facts = {
        "source": manifest["source"],
        "base": {"files": manifest["files"], "command": manifest["command"]},
        "seed": options.seed,
        "training": {
            **inputs.facts,
            "workers": request.workers.count,
            "kept_epoch": result.best.epoch,
            "kept_step": result.best.step,
            **({"seeds": seeds.to_json()} if seeds is not None else {}),
            **({"tuned_metrics": result.best.metrics} if task.tunes else {}),
            "evaluations": [
                {"epoch": report.epoch, "step": report.step, "metrics": report.metrics} for report in result.evaluations
            ],
        },
    }
    return BundleContent(
        base.config,
        signature,
        model.inference_symbol.tojson(),
        params,
        base.vocabulary(),
        facts,
        model.written_symbol.tojson(),
        base.tokenizer_json(),
    )
