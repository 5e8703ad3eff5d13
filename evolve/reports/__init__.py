"""What a run leaves for people: report, lineage, champion, pictures and an index of all runs."""
