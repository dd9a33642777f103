"""The table: its file and the sound look-up."""
