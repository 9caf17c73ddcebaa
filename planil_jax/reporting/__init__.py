"""What a run looks like: a page, figures, films."""
