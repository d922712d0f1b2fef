"""The commands: one file each, settings in, artefacts out."""
