"""Words of any script, for every comparison of texts: metrics, the parts that an utterance names, equal texts.

A *word* is a run of letters and digits with their marks, in small letters. In the scripts that write without blanks
between words (Han, Kana, Thai, ...), each character is a word, as in sacrebleu's Chinese tokenizer: where a word ends
there is a question for a dictionary of that language. In texts of ASCII characters the words are those of rouge-score.
"""

from __future__ import annotations

import functools
import re
import unicodedata

# Named in results: figures of texts with other words cannot be compared.
TOKENIZATION = "words of letters, marks and digits; single characters in scripts without blanks; BLEU: 13a"

_ASCII_WORD = re.compile("[a-z0-9]+")
# Unicode blocks of the scripts that write without blanks: first and last code point.
_WITHOUT_BLANKS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x2E80, 0x2FDF),  # radicals of Han
    (0x3005, 0x3007),  # Han: iteration mark, closing mark, zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3041, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31FF),  # Bopomofo, strokes, Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0xA4CF),  # Han, Yi
    (0xA980, 0xA9FF),  # Javanese, Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),  # Han
    (0xFF66, 0xFF9F),  # Katakana of half width
    (0x1AFF0, 0x1B16F),  # Kana
    (0x20000, 0x3FFFF),  # Han
)
_ALONE = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _WITHOUT_BLANKS) + "]")
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)
_ZERO_WIDTH_SPACE = "\u200b"


def words(text: str) -> list[str]:
    """The words of a text, in small letters and in Unicode's composed form (NFC)."""
    text = text.lower()
    if text.isascii():
        return _ASCII_WORD.findall(text)
    pieces = "".join(map(_in_word, spaced(composed(text).lower()))).split()
    return [piece for piece in pieces if any(map(str.isalnum, piece))]  # marks alone are no word


def spaced(text: str) -> str:
    """The text in composed form, with blanks round each character of a script that writes without blanks.

    It is meant for tokenizers that cut at blanks. A text of other scripts changes in its form only.
    """
    text = composed(text)
    if _ALONE.search(text) is None:
        return text
    pieces: list[str] = []
    alone = False
    for character in text:
        if not (alone and _is_mark(character)):
            before, alone = alone, _ALONE.match(character) is not None
            if before or alone:
                pieces.append(" ")
        pieces.append(character)
    return "".join(pieces)


def composed(text: str) -> str:
    """The text in NFC: "é" is one character, however it was typed."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def same_text(one: str, other: str) -> bool:
    """Whether two texts are equal, apart from blanks at their ends and from their Unicode form."""
    return composed(one).strip() == composed(other).strip()


def continued(text: str, more: str) -> str:
    """A text and the line that it wraps into, with a blank between; a word that is cut at its hyphen has none."""
    cut = text[-1:] == "-" and text[-2:-1].isalnum()
    return f"{text}{'' if cut else ' '}{more}".strip()


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Mc")


@functools.lru_cache(maxsize=1 << 14)
def _in_word(character: str) -> str:
    """The character as a part of a word: itself, nothing where it is invisible, or a blank where it is no part."""
    kind = unicodedata.category(character)
    if kind == "Cf" or ord(character) in _VARIATION_SELECTORS:
        return " " if character == _ZERO_WIDTH_SPACE else ""
    return character if character.isalnum() or kind[0] == "L" or _is_mark(character) else " "
