"""The report: ``results.json`` and its schema, the page, the printed overview, paired differences."""
