"""The JSON files through which stages know each other: one record and one reader a file, a module a file."""
