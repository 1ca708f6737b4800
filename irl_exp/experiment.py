"""The study, from comments to behaviour. Read it top to bottom; every line is a step in steps/."""

from contextlib import suppress

from irl_exp.config import CheckpointRLHF, FileDemonstrations
from irl_exp.steps.align import align, take
from irl_exp.steps.audit import audit, require_labels
from irl_exp.steps.bench import Bench, UntilReached
from irl_exp.steps.curate import curate
from irl_exp.steps.demonstrate import demonstrate, read, require_prompts
from irl_exp.steps.evaluate import evaluate
from irl_exp.steps.ground_truth import fit_ground_truth, fit_twin, second_classifier
from irl_exp.steps.identify import identify
from irl_exp.steps.interpret import interpret
from irl_exp.steps.observe import observe
from irl_exp.steps.pretrain import pretrain
from irl_exp.steps.realign import check, realign, spent
from irl_exp.steps.recover import as_measured, recover
from irl_exp.store import Artifact
from irl_exp.validation import knows_truth, not_applicable


def run(bench: Bench) -> None:
    """Run the study as far as `until` says; results go to the run directory."""
    given = isinstance(bench.config.rlhf, CheckpointRLHF)
    with suppress(UntilReached):
        (study_given if given else study)(bench)


def study(bench: Bench) -> None:
    config = bench.config

    comments = curate(bench)
    bench.finish("curate")
    require_prompts(bench, comments)
    reference = pretrain(bench, comments)
    bench.finish("pretrain")
    truth = fit_ground_truth(bench, comments, reference)
    bench.finish("ground_truth")
    judges = (truth, second_classifier(bench, comments, reference))
    aligned = align(bench, comments, reference, truth)
    # Before inverting: is the expert aligned at all?
    before = observe(bench, "reference", reference, comments, reference, *judges)
    after = observe(bench, "aligned", aligned, comments, reference, *judges, baseline=before)
    if wanted := getattr(config.rlhf, "kl_target", None):
        check(bench, "aligned", wanted, after)
    bench.finish("align")
    pairs = demonstrate(bench, comments, aligned, reference)
    bench.finish("demonstrate")
    inputs = (comments, pairs, aligned, reference, truth)
    recovered = recover(bench, config.solver, *inputs)
    bench.finish("recover")
    controls = recover_controls(bench, *inputs)
    measured = as_measured(bench, recovered, *inputs)
    twin, label_model = fit_twin(bench, comments, reference)
    observed = {"reference": before, "aligned": after}
    evaluate(bench, comments, pairs, reference, truth, measured, controls, twin, observed)
    bench.finish("evaluate")
    if config.evaluation.identify_pairs:
        identify(bench, comments, pairs, reference, truth, recovered)
    bench.finish("identify")
    if config.evaluation.interpret_texts:
        interpret(bench, comments, pairs, reference, truth, recovered, label_model)
    bench.finish("interpret")
    # At the KL of the aligned policy, for equal terms, and where asked for at multiples of it.
    kl = spent(bench, comments, aligned, reference)
    targets = {"": kl} | {f"_{times:g}": times * kl for times in config.evaluation.frontier}
    realigned = {
        name: realign(bench, comments, reference, recovered, target, label=f"realign{name}")
        for name, target in targets.items()
    }
    bench.finish("realign")
    judged = {"baseline": before, "aligned": after, "recovered": recovered}
    for name, target in targets.items():
        label, policy = f"realigned{name}", realigned[name]
        seen = observe(bench, label, policy, comments, reference, *judges, **judged)
        check(bench, label, target, seen)


def study_given(bench: Bench) -> None:
    """The same line of what somebody else has aligned, and what the two models wrote: an audit.

    Who has no ground truth goes without what only that could tell.
    """
    config = bench.config

    # What is given first: it may not be what it should.
    require_labels(bench)
    pairs = read(bench) if isinstance(config.demonstrations, FileDemonstrations) else None
    comments = curate(bench)
    bench.finish("curate")
    require_prompts(bench, comments)
    aligned = take(bench)
    reference = pretrain(bench, comments)
    bench.finish("pretrain")
    truth = fit_ground_truth(bench, comments, reference, pairs) if knows_truth(config) else None
    bench.finish("ground_truth")
    bench.finish("align")
    if pairs is None:
        assert aligned is not None  # validation says so before
        pairs = demonstrate(bench, comments, aligned, reference)
    bench.finish("demonstrate")
    inputs = (comments, pairs, aligned, reference, truth)
    recovered = recover(bench, config.solver, *inputs)
    bench.finish("recover")
    controls = recover_controls(bench, *inputs)
    audit(bench, comments, pairs, aligned, reference, truth, recovered, controls)
    bench.finish("evaluate")
    if config.evaluation.identify_pairs:
        identify(bench, comments, pairs, reference, truth, recovered)
    bench.finish("identify")
    if config.evaluation.interpret_texts:
        interpret(bench, comments, pairs, reference, truth, recovered, None)


def recover_controls(
    bench: Bench,
    comments: Artifact,
    pairs: Artifact,
    aligned: Artifact | None,
    reference: Artifact,
    truth: Artifact | None,
) -> dict[str, Artifact | None]:
    """Each control by its name, of what R̂ is recovered from; None where it has no meaning."""
    inputs = (comments, pairs, aligned, reference, truth)
    return {
        name: None
        if not_applicable(control, bench.config)
        else recover(bench, control, *inputs, label=f"control_{name}")
        for name, control in bench.config.evaluation.controls.items()
    }
