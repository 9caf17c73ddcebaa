"""What a trained run looks like: a page, figures, films."""
