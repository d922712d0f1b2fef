"""Frame stores of videos on disk, and pictures drawn from labels where there is no video."""
