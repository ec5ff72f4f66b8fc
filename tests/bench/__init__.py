"""Numbers with their method: `python -m tests.bench NAME`. Times are reported here and asserted nowhere."""
