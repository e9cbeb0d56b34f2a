"""The only SQL: `control.db` (which segments there are), one database for each segment, and that of a witness."""
