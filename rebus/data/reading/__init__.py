"""What readers of several layouts share: tables, lines, large JSON files, shards, kept indices."""
