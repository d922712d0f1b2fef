"""A transformers pipeline: takes a video and a plan, returns the assistant's decisions and words at every frame.

    pipe = transformers.pipeline("dst-stream", model=FOLDER, trust_remote_code=True)
    events = pipe("assembly.mp4", plan=["Attach the wheels.", "Attach the roof."], goal="Assemble the toy")

Remote code of the Hub: it imports torch and transformers and nothing of the training package.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import Pipeline

try:
    from .streaming_dst_smolvlm import StreamEvent
    from .video_dst_smolvlm import sample_video
except ImportError:  # imported as a top-level module of the installed package
    from streaming_dst_smolvlm import StreamEvent
    from video_dst_smolvlm import sample_video


class DSTStreamPipeline(Pipeline):
    """Follows whole videos with ``DSTStream``; registered as ``dst-stream`` in the checkpoint's configuration."""

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(self, video: Any, plan: Sequence[str] | None = None, goal: str = "", **kwargs: Any) -> Any:
        """Follow one video, or several.

        Args:
            video: a file or URL that PyAV reads, sampled at ``config.fps``; or the frames themselves (PIL pictures or
                uint8 RGB arrays, ``config.fps`` a second); or a list of dicts with ``video``, ``plan`` and ``goal``.
            plan: the steps.
            goal: what the user wants to achieve.
            user_texts: frame index -> what the user says on it.
            plan_changes: frame index -> the plan from that frame on; see ``DSTStream.change_plan``.
            **kwargs: ``context``, ``tracking`` and ``decoding`` of ``DSTStream``.

        Returns:
            a list of ``StreamEvent``, one a frame; for several videos a list of such lists.
        """
        if plan is None:
            several = isinstance(video, (list, tuple)) and all(isinstance(item, Mapping) for item in video)
            if not several:
                raise ValueError("Give the plan: pipe(video, plan=[...]), or a list of dicts with video and plan.")
            return super().__call__([dict(item) for item in video], **kwargs)
        return super().__call__({"video": video, "plan": plan, "goal": goal}, **kwargs)

    def _sanitize_parameters(
        self,
        user_texts: Mapping[int, str] | None = None,
        plan_changes: Mapping[int, Sequence[str]] | None = None,
        **options: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = set(options) - {"context", "tracking", "decoding"}
        if unknown:
            raise TypeError(
                f"The pipeline takes no {sorted(unknown)}; it takes user_texts, plan_changes, context, tracking and "
                "decoding."
            )
        by_frame = {"user_texts": user_texts, "plan_changes": plan_changes}
        return {name: given for name, given in by_frame.items() if given is not None}, options, {}

    def preprocess(
        self,
        inputs: dict[str, Any],
        user_texts: Mapping[int, str] | None = None,
        plan_changes: Mapping[int, Sequence[str]] | None = None,
    ) -> dict[str, Any]:
        """The inputs of a stream; its frames are read while they are followed."""
        missing = {"video", "plan"} - set(inputs)
        if missing:
            raise ValueError(f"An input has no {' and no '.join(sorted(missing))}.")
        return {
            "frames": self._frames(inputs["video"]),
            "user_texts": user_texts or {},
            "plan_changes": plan_changes or {},
            "plan": inputs["plan"],
            "goal": inputs.get("goal", ""),
        }

    def _frames(self, video: Any) -> Iterator[Any]:
        if isinstance(video, (str, os.PathLike)):
            return (frame.picture for frame in sample_video(video, self.model.config.fps))
        return iter(video)

    def _forward(self, model_inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        stream = self.model.stream(self.processor, model_inputs["plan"], model_inputs["goal"], **options)
        # Step by step: the model's own streaming module may be another copy of the file than the pipeline's.
        texts, plans, events = model_inputs["user_texts"], model_inputs["plan_changes"], []
        for number, picture in enumerate(model_inputs["frames"]):
            if number in plans:
                stream.change_plan(plans[number])
            events.append(stream.step(picture, texts.get(number)))
        return {"events": events}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[StreamEvent]:
        """The events."""
        events: list[StreamEvent] = model_outputs["events"]
        return events


__all__ = ["DSTStreamPipeline"]
