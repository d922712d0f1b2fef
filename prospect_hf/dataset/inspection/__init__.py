"""Checks a built or published dataset against its promises, and shows what is in it."""
