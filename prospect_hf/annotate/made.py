"""From an alignment to a record of labels, or to the reason why there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prospect_hf.align.alignment import Alignment
from prospect_hf.annotate.corpus import Video, reason_of
from prospect_hf.annotate.records import Failure, LabelRecord, Provenance
from prospect_hf.annotate.validation import Policy, validate
from prospect_hf.errors import DataError
from prospect_hf.sources.proassist import check_length

Made = LabelRecord | Failure
# Is told what was made of a video.
Emit = Callable[[Video, Made], None]

DIGITS = 4  # of a confidence


def labelled(
    video: Video, alignment: Alignment, provenance: Provenance, policy: Policy, answers: Sequence[str] = ()
) -> Made:
    """The valid labels of an alignment, or why it has none; ``answers`` are a language model's raw answers."""
    try:
        rules = policy.of(video.key.source)
        valid = validate(alignment.visits, video.task.steps, video.bounds, rules, video.task.annotation.lines)
        last = max(span.start if span.end is None else span.end for span in valid.spans)
        # What is written can be read: readers refuse labels far beyond the end of a video that has no frame store.
        check_length(last, video.stated_end if video.bounds.end_s is None else None, video.task.origin)
    except DataError as error:
        return failed(video, error, provenance, answers)
    return LabelRecord(
        *video.key,
        steps=tuple(step.text for step in video.task.steps),
        spans=valid.spans,
        confidences=tuple(round(one, DIGITS) for one in valid.confidences),
        confidence=round(alignment.confidence, DIGITS),
        provenance=provenance,
        repairs=valid.repairs,
        start_s=video.bounds.start_s,
        end_s=video.bounds.end_s,
        notes={rule: count for rule, count in valid.notes.items() if count},
        unexplained_s=valid.unexplained_s,
    )


def failed(video: Video, error: Exception, provenance: Provenance, answers: Sequence[str] = ()) -> Failure:
    """A video without labels, for the reason that an error gives."""
    return Failure(*video.key, reason_of(error, video.task.origin), tuple(answers), provenance)
