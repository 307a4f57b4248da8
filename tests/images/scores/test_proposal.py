"""The checkpoint that is proposed, and why: each rule with the runs that show it."""

from pathlib import Path

import pytest

from studio.core.errors import RunError
from studio.images.scores.summary import ScoreSummary, Spread
from studio.training.events import ReferenceEvent, ScoreEvent
from studio.training.proposal import BaseComparison, CheckpointPoint, Proposal, compare_with_base, propose_checkpoint
from studio.training.torch.scores import RunScores


def spread(value: float, count: int = 8) -> Spread:
    return Spread(mean=value, median=value, low=value, high=value, count=count)


def scores(
    *,
    white: float = 0.95,
    right: int = 7,
    offset: float = 0.05,
    distance: float | None = 0.5,
    copies: int = 0,
    without_subject: int = 0,
) -> ScoreSummary:
    return ScoreSummary(
        num_pictures=8,
        whiteness=spread(white),
        num_white=8 if white > 0.95 else 0,
        offset=spread(offset),
        num_centred=8,
        num_without_subject=without_subject,
        colour_difference=spread(6.0),
        num_named_right=right,
        sharpness=spread(0.6),
        nearest=None if distance is None else spread(distance),
        num_copies=copies,
        num_close=0,
    )


BASE = scores(white=0.02, right=6, distance=0.9)


def point(step: int, found: ScoreSummary | None = None, *, loss: float | None = None) -> CheckpointPoint:
    return CheckpointPoint(step=step, held_out_loss=loss, trained_loss=0.1, scores=found, base=BASE if found else None)


def objections(proposal: Proposal, step: int) -> str:
    return " ".join(next(verdict.objections for verdict in proposal.verdicts if verdict.step == step))


def test_the_best_point_is_taken_and_the_reason_is_a_sentence() -> None:
    proposal = propose_checkpoint(
        [
            point(100, scores(white=0.4), loss=0.15),
            point(300, scores(white=0.97, right=8), loss=0.12),
            point(500, scores(white=0.97, right=8, distance=0.2, copies=3), loss=0.13),
        ]
    )
    assert proposal.step == 300
    assert proposal.is_sure
    assert proposal.sentence == (
        "Step 300: white backgrounds 97% (base 2%), held-out loss lowest, 8 of 8 colours as asked, "
        "no image is a copy; later steps get closer to the training images."
    )


def test_of_points_that_are_as_good_the_earliest_is_taken() -> None:
    proposal = propose_checkpoint([point(step, scores(), loss=0.12) for step in (400, 200, 300)])
    assert proposal.step == 200
    assert "no better" in proposal.sentence


def test_memorising_late_is_not_proposed_however_white() -> None:
    proposal = propose_checkpoint(
        [point(200, scores(white=0.8), loss=0.12), point(900, scores(white=1.0, right=8, copies=4), loss=0.12)]
    )
    assert proposal.step == 200
    assert objections(proposal, 900) == "4 of 8 are copies"


def test_the_bases_own_copies_do_not_count_against_a_point() -> None:
    base = scores(white=0.02, copies=4)
    points = [CheckpointPoint(step=step, scores=scores(copies=4), base=base) for step in (100, 200)]
    assert objections(propose_checkpoint(points), 100) == ""


def test_grounds_less_white_than_the_bases_are_not_proposed() -> None:
    base = scores(white=0.9)
    proposal = propose_checkpoint(
        [
            CheckpointPoint(step=100, scores=scores(white=0.92, right=2), base=base),
            CheckpointPoint(step=200, scores=scores(white=0.5, right=8), base=base),
        ]
    )
    assert proposal.step == 100
    assert "less white than the base's (50% against 90%)" in objections(proposal, 200)


def test_where_white_is_not_wanted_it_does_not_count() -> None:
    points = [point(100, scores(white=0.9, right=3)), point(200, scores(white=0.0, right=8))]
    assert propose_checkpoint(points).step == 100
    proposal = propose_checkpoint(points, white_background=False)
    assert proposal.step == 200
    assert "white" not in proposal.sentence


def test_overfit_points_are_not_proposed() -> None:
    proposal = propose_checkpoint([point(100, scores(white=0.8), loss=0.1), point(200, scores(white=1.0), loss=0.12)])
    assert proposal.step == 100
    assert "20% above the lowest" in objections(proposal, 200)


def test_without_scores_the_lowest_held_out_loss_counts() -> None:
    proposal = propose_checkpoint([point(100, loss=0.15), point(200, loss=0.1205), point(300, loss=0.12)])
    assert proposal.step == 200  # half a percent is nothing: the earlier one
    assert not proposal.is_sure
    assert "no images were scored" in proposal.sentence


def test_without_anything_the_last_is_taken_and_that_is_said() -> None:
    proposal = propose_checkpoint([point(100), point(200)])
    assert proposal.step == 200
    assert not proposal.is_sure
    assert "only the last checkpoint" in proposal.sentence


def test_without_held_out_loss_the_scores_count() -> None:
    proposal = propose_checkpoint([point(100, scores(white=0.3)), point(200, scores(white=0.9))])
    assert proposal.step == 200
    assert "loss" not in proposal.sentence


def test_a_single_point_is_the_only_one() -> None:
    proposal = propose_checkpoint([point(100, scores(), loss=0.1)])
    assert (proposal.step, proposal.is_sure) == (100, False)
    assert "it is the only checkpoint" in proposal.sentence


def test_where_every_point_has_an_objection_the_least_bad_is_taken_and_it_is_said() -> None:
    proposal = propose_checkpoint(
        [point(100, scores(copies=3), loss=0.1), point(200, scores(white=1.0, copies=6), loss=0.2)]
    )
    assert (proposal.step, proposal.is_sure) == (100, False)
    assert "but 3 of 8 are copies, and no other step is better" in proposal.sentence


def test_points_whose_pictures_were_not_looked_at_wait_behind_those_that_were() -> None:
    proposal = propose_checkpoint([point(100, scores(), loss=0.13), point(200, loss=0.125)])
    assert proposal.step == 100


def test_losses_that_are_no_numbers_count_as_missing() -> None:
    proposal = propose_checkpoint([point(100, scores(), loss=0.1), point(200, scores(white=1.0), loss=float("nan"))])
    assert proposal.step in (100, 200)
    assert "nan" not in proposal.sentence


def test_of_a_step_twice_the_last_counts() -> None:
    proposal = propose_checkpoint([point(100, scores(white=0.1)), point(100, scores(white=0.9)), point(200, BASE)])
    assert len(proposal.verdicts) == 2
    assert proposal.step == 100


def test_pictures_without_a_subject_speak_against_a_point() -> None:
    proposal = propose_checkpoint([point(100, scores(without_subject=7)), point(200, scores())])
    assert proposal.step == 200


def test_no_point_is_an_error_in_words() -> None:
    with pytest.raises(RunError, match="no checkpoint"):
        propose_checkpoint([])


def of_four(value: float) -> Spread:
    return spread(value, 4)


def four(**changes: object) -> ScoreSummary:
    """Of four images, all well."""
    values = {"num_white": 4, "num_centred": 4, "num_without_subject": 0, "num_named_right": 4, "num_copies": 0}
    spreads = {"whiteness": 0.98, "offset": 0.05, "colour_difference": 9.0, "sharpness": 0.5, "nearest": 1.0}
    known = {name: of_four(value) for name, value in spreads.items()}
    return ScoreSummary.model_validate({"num_pictures": 4, "num_close": 0, **values, **known, **changes})


def compared(base: ScoreSummary, scores: ScoreSummary, *, reference: ScoreSummary | None = None) -> BaseComparison:
    found = compare_with_base(
        {0: ScoreEvent(step=0, scores=base, base=base), 40: ScoreEvent(step=40, scores=scores, base=base)},
        step=None,
        reference=reference,
    )
    assert found is not None
    return found


def test_the_verdict_compares_with_the_base_in_every_score_and_says_what_got_worse_first() -> None:
    found = compared(four(whiteness=of_four(0.35)), four(num_named_right=2))
    assert found.worse == ("colours got worse: 4 of 4 → 2 of 4",)
    assert found.better == ("white backgrounds got better: 35% → 98%",)
    assert found.same == (
        "subjects found unchanged: 4 of 4",
        "centring unchanged: 4 of 4",
        "copies of training images unchanged: 0 of 4",
        "sharpness unchanged: 0.50",
    )
    assert found.sentence.startswith(
        "Compared with the base at step 40: colours got worse: 4 of 4 → 2 of 4; white backgrounds got better"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_copies": 2}, "copies of training images got worse: 0 of 4 → 2 of 4"),
        ({"num_centred": 1}, "centring got worse: 4 of 4 → 1 of 4"),
        ({"num_without_subject": 2}, "subjects found got worse: 4 of 4 → 2 of 4"),
        ({"whiteness": of_four(0.8)}, "white backgrounds got worse: 98% → 80%"),
        ({"sharpness": of_four(0.2)}, "sharpness got worse: 0.50 → 0.20"),
    ],
)
def test_each_score_can_get_worse(changes: dict[str, object], said: str) -> None:
    assert compared(four(), four(**changes)).worse == (said,)
    assert said.replace("worse", "better").split(":")[0] in compared(four(**changes), four()).sentence


def test_a_background_that_the_dataset_does_not_have_white_is_not_missed() -> None:
    grey = four(whiteness=of_four(0.1), num_white=0)
    assert compared(four(), grey, reference=grey).worse == ()
    assert compared(four(), grey, reference=four()).worse != ()


@pytest.mark.parametrize("mean", [0.1, 0.49, 0.5, 0.8, 1.0])
def test_the_verdict_and_the_proposal_judge_white_backgrounds_for_the_same_datasets(mean: float) -> None:
    reference, grey = four(whiteness=of_four(mean)), four(whiteness=of_four(0.1), num_white=0)
    tracker = RunScores(root=Path(), items=())
    tracker.take_in(ReferenceEvent(scores=reference))
    judged = compared(four(), grey, reference=reference).worse != ()
    assert judged == tracker.white_background == (mean >= 0.5)


def test_the_proposed_step_is_compared_where_it_was_scored() -> None:
    scores = {
        step: ScoreEvent(step=step, scores=four(num_named_right=n), base=four()) for step, n in ((20, 4), (40, 1))
    }
    proposed = compare_with_base(scores, step=20, reference=None)
    last = compare_with_base(scores, step=30, reference=None)
    assert (proposed and proposed.step, last and last.step) == (20, 40)
    assert compare_with_base({}, step=20, reference=None) is None
