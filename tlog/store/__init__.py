"""The only SQL: `control.db` (which segments there are) and one database for each segment."""
