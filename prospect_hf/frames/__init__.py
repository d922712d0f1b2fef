"""The frames of a video on disk, and pictures drawn from labels where a video is not at hand."""
