"""What is to be said of a source: whatever was changed, left out or left unread."""

from collections import Counter

_SHOWN = 3  # episodes that were left out, each with its reason


class Ledger:
    """Sentences, each said once, and counts of what happened to many episodes."""

    def __init__(self, notes: tuple[str, ...] = ()) -> None:
        self._said = dict.fromkeys(notes)
        self._counts: Counter[str] = Counter()  # "… {}" -> how many
        self.left_out: list[str] = []  # why, of each episode
        self._clipped = self._numbers = 0  # numbers of actions

    def say(self, sentence: str) -> None:
        self._said[sentence] = None

    def count(self, sentence: str) -> None:
        """Counts one more of what a sentence with {} for the number says."""
        self._counts[sentence] += 1

    def clip(self, clipped: int, numbers: int) -> None:
        """Counts numbers of actions, of which some were clipped."""
        self._clipped += clipped
        self._numbers += numbers

    def notes(self) -> list[str]:
        """All that is to be said."""
        counted = [sentence.format(count) for sentence, count in self._counts.items()]
        if self._clipped:
            share = f"{self._clipped} of {self._numbers}"
            counted.append(f"{share} numbers of actions were clipped to their bounds.")
        left_out = [f"left out: {reason}" for reason in self.left_out[:_SHOWN]]
        if len(self.left_out) > _SHOWN:
            left_out.append(f"left out, in all: {len(self.left_out)} episodes.")
        return [*self._said, *counted, *left_out]
