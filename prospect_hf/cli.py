"""The console command ``prospect``."""
