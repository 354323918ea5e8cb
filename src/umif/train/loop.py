"""The loop: fetch → step (forward → gather → losses → backward → clip → update → teacher) → log → save.

What step k sees and computes is a pure function of (corpus, recipe, k) and the state before it, so a run that was
killed goes on as if nothing had happened. Steps are counted from 0 where they are keys of random draws, and as
finished steps, from 1, in everything that is written.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from umif.corpus.mirror import corpus_folder
from umif.errors import CollapseError, CorpusError, NonFiniteError
from umif.tokens.loader import batches
from umif.train.distributed import joined
from umif.train.health import Health, feature_health
from umif.train.log import RunLog, Stopwatch
from umif.train.optim import warmup_steps
from umif.train.runfolder import read_run_json
from umif.train.shard import is_sharded
from umif.train.signals import StopRequest
from umif.train.start import Run, started
from umif.train.step import Outcome, Stepper

if TYPE_CHECKING:
    from umif.train.recipe import Recipe
    from umif.train.state import TrainState

# Fewer bad samples than this are no share yet, unless none at all are allowed.
_FEW_BAD = 10


@dataclass(frozen=True, slots=True)
class PretrainSummary:
    """What came of `pretrain`.

    Attributes:
        run: The run folder.
        steps, total_steps: Finished steps, and those of the whole run.
        finished: Whether the run is complete.
        stopped_by: The signal that stopped it (`SIGTERM`, `SIGINT`), or `None`.
        pairs_per_s, data_wait_share: Since this start: pairs a second, and the share of time spent waiting for data.
        losses: Of the last step, by objective.
        bad_samples: Samples dropped since the first step.
    """

    run: str
    steps: int
    total_steps: int
    finished: bool
    stopped_by: str | None
    pairs_per_s: float
    data_wait_share: float
    losses: dict[str, float]
    bad_samples: int

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return asdict(self)


def pretrain(recipe: Recipe, *, resume: bool = True, progress: bool = True) -> PretrainSummary:
    """Train as the recipe says, or go on where the run in `recipe.out` stopped.

    SIGTERM and Ctrl-C finish the step, save, and return a summary with `finished=False`. Under `torchrun` every
    process calls this, and one writes.

    Args:
        recipe: What to train.
        resume: Go on with a run that is there; `False` refuses to.
        progress: Show progress on standard error.

    Raises:
        RunError: the run folder is in use, belongs to another corpus or recipe, or has no intact checkpoint.
        CorpusError: the corpus cannot be used, or more of its samples than `train.max_bad_share` are bad.
        NonFiniteError: NaN or Inf in several steps in a row.
        CollapseError: all features became alike.
        StorageError: the disk refused a write.
        ProcessLostError: another process of the run ended.
    """
    # A corpus behind a URL has a folder in the cache; run.json names that, for whoever looks the corpus up later.
    recipe = recipe.model_copy(update={"corpus": corpus_folder(recipe.corpus)})
    with (
        joined(recipe.train.device) as processes,
        StopRequest() as stop,
        started(recipe, processes, resume=resume) as (run, state),
    ):
        return _train(run, state, stop, progress=progress)


def _train(run: Run, state: TrainState, stop: StopRequest, *, progress: bool) -> PretrainSummary:
    """Go through the steps that are left."""
    config = run.recipe.train
    log = _open_log(run, state, progress=progress)
    watch, last_save, stopped_by = Stopwatch(), time.monotonic(), None
    stepper, late = Stepper(run, state), None
    try:
        fetching = time.perf_counter()
        for step, batch, bad in batches(run.dataset, state.step, run.steps, config.workers):
            waited = time.perf_counter() - fetching
            overdue = config.save_every_seconds is not None and time.monotonic() - last_save > config.save_every_seconds
            outcome = stepper.step(step, batch, bad, stop=stop.received is not None, save=overdue)
            state.step = step + 1
            watch.step(outcome.pairs, waited)
            if late is not None:
                _settle(run, state, late, watch, log)
            due = config.save_every is not None and state.step % config.save_every == 0
            due = due or outcome.save or outcome.stop or state.step == run.steps
            if stepper.ahead and not (due or _looks(run, state.step)):
                late = outcome
            else:
                late, collapsed = None, _settle(run, state, outcome, watch, log)
                if due or collapsed:
                    _save(run, state, log)
                    last_save = time.monotonic()
                if collapsed:
                    raise _collapse(run, outcome.row)
            if outcome.stop and state.step < run.steps:
                stopped_by = stop.received or "SIGTERM"
                break
            fetching = time.perf_counter()
        return _finish(run, state, watch, stopped_by, log)
    finally:
        if log is not None:
            log.close()


def _settle(run: Run, state: TrainState, outcome: Outcome, watch: Stopwatch, log: RunLog | None) -> bool:
    """Take a step into the counters, the ledger and the log; return whether features have collapsed for good.

    Where the device runs ahead that is one step late, but for steps that are looked at or saved.
    """
    outcome.read()
    if outcome.skipped is None:
        state.losses = {name: value for name, value in outcome.row["losses"].items() if name != "total"}
    _account(run, state, outcome, log)
    return _look(run, state, outcome, watch, log)


def _looks(run: Run, step: int) -> bool:
    """Whether features are looked at after so many steps."""
    return step % run.recipe.train.log_every == 0 or step == run.steps


def _account(run: Run, state: TrainState, outcome: Outcome, log: RunLog | None) -> None:
    """Count what the step lost and write it to the ledger.

    Raises:
        NonFiniteError: the updates of several steps in a row were skipped.
        CorpusError: too many samples are bad.
    """
    step = outcome.row["step"]
    state.pairs_seen += outcome.pairs
    state.bad_samples += outcome.dropped
    ledger: list[dict[str, Any]] = []
    if outcome.dropped:
        mine = [{"step": step, **sample.to_json()} for sample in outcome.bad]
        ledger += sorted((row for part in run.processes.gather(mine) for row in part), key=lambda row: row["slot"])
    if outcome.skipped is None:
        state.nonfinite_in_a_row = 0
    else:
        state.nonfinite += 1
        state.nonfinite_in_a_row += 1
        names = run.processes.gather(run.dataset.pair_names(outcome.batch))
        pairs = sorted(name for part in names for name in part)
        ledger.append({"step": step, "stage": outcome.skipped, "error": "NaN or Inf", "pairs": pairs})
    if log is not None:
        log.ledger(ledger)
    where = run.recipe.out / "ledger.jsonl"
    if state.nonfinite_in_a_row >= run.recipe.train.max_nonfinite:
        raise NonFiniteError(
            f"NaN or Inf in the {outcome.skipped} of {state.nonfinite_in_a_row} steps in a row, up to {step}",
            where=where,
            fix="the ledger names the pairs; in a new run lower optim.lr, or try train.dtype=fp32 instead of bf16",
        )
    share, drawn = run.recipe.train.max_bad_share, state.pairs_seen + state.bad_samples
    if outcome.dropped and state.bad_samples > share * drawn and (state.bad_samples >= _FEW_BAD or share == 0):
        raise CorpusError(
            f"{state.bad_samples} of {drawn} samples could not be used, more than train.max_bad_share = {share:g}",
            where=where,
            fix="the ledger names them; mend them and prepare the corpus again, or raise train.max_bad_share",
        )


def _look(run: Run, state: TrainState, outcome: Outcome, watch: Stopwatch, log: RunLog | None) -> bool:
    """Log the step; now and then look at the features too, and return whether they have collapsed for good."""
    config, row = run.recipe.train, outcome.row
    if outcome.skipped is not None:
        row = {**row, "skipped": outcome.skipped, "losses": {}, "grad_norm": None}
    elif _looks(run, row["step"]):
        # The main process's numbers count: another's might differ in a last bit, and with it a verdict.
        seen = run.processes.on_main(lambda: feature_health(outcome.features).to_json())
        row |= seen | watch.window()
        if Health(**seen).collapsed(config) and row["step"] > warmup_steps(run.recipe.optim, run.steps):
            state.collapsed_in_a_row += config.log_every
        else:
            state.collapsed_in_a_row = 0
    if log is not None:
        log.row(row)
    return state.collapsed_in_a_row >= config.collapse_patience


def _save(run: Run, state: TrainState, log: RunLog | None) -> None:
    out, keep, sharded = run.recipe.out, run.recipe.train.keep, is_sharded(state.model)

    def write() -> None:
        if log is not None:
            # Rows first: a checkpoint says that all its steps are in the log.
            log.sync()
            if not sharded:
                state.save(out, keep=keep)

    run.processes.on_main(write)
    if sharded:
        state.save_together(out, run.processes, keep=keep)


def _collapse(run: Run, row: dict[str, Any]) -> CollapseError:
    return CollapseError(
        f"features have collapsed: std × √D {row['std']:.3f}, in-batch accuracy {row['accuracy']:.3f} "
        f"(chance {row['chance']:.3f}) at step {row['step']}",
        where=run.recipe.out,
        fix="in a new run lower optim.lr, lengthen optim.warmup_share, lower data.p_separate or raise "
        "data.pairs_per_kind; to go on all the same, raise train.collapse_patience",
    )


def _open_log(run: Run, state: TrainState, *, progress: bool) -> RunLog | None:
    if run.folder is None or state.step >= run.steps:
        return None
    log = RunLog(
        run.folder.path,
        step=state.step,
        steps=run.steps,
        tensorboard=run.recipe.train.tensorboard,
        progress=progress,
    )
    verb = f"goes on after step {state.step}" if state.step else "begins"
    log.say(
        f"{run.recipe.name} {verb}: {run.steps} steps of {run.recipe.batch_size} pairs on {run.processes.world_size} × "
        f"{run.processes.device.type}, {run.dtype}"
    )
    return log


def _finish(
    run: Run, state: TrainState, watch: Stopwatch, stopped_by: str | None, log: RunLog | None
) -> PretrainSummary:
    """Sum the run up; a finished run keeps the summary that it was finished with."""
    known = read_run_json(run.recipe.out, "summary.json") if log is None and run.processes.is_main else None
    if known is not None:
        return PretrainSummary(**{**known, "run": str(run.recipe.out)})
    rates = watch.whole()
    summary = PretrainSummary(
        run=str(run.recipe.out),
        steps=state.step,
        total_steps=run.steps,
        finished=state.step >= run.steps,
        stopped_by=stopped_by,
        pairs_per_s=rates["pairs_per_s"],
        data_wait_share=rates["data_wait_share"],
        losses=state.losses,
        bad_samples=state.bad_samples,
    )
    if run.folder is not None and summary.finished:
        run.folder.write("summary.json", summary.to_json())
    if log is not None:
        end = "finished" if summary.finished else f"stopped by {stopped_by}"
        log.say(f"{end} after step {state.step}: {run.recipe.out}")
    return summary
