"""Texts on which tokenizers may differ."""

from __future__ import annotations

import random

_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "It's what we've got, they'll say: IT'S 42, 3.14 and 1e-5!",
    "Les élèves français à l'école où Noël naît; coöperate, naïve café, cafe\u0301.",
    "Größe, Straße, İstanbul, I\u011fd\u0131r, ΣΊΣΥΦΟΣ, ﬁnal ǅ",
    "日本語のテキストと中文字符\uff0c混在する。ｶﾀｶﾅ",
    "안녕하세요 세계, 한국어 문장입니다.",
    "emoji 😀 and 👩\u200d👩\u200d👧, ☃\ufe0f and 🇫🇷🎉",
    "def main(argv):\n    for x in range(10):\n\t\treturn x  # ok\n",
    "SELECT * FROM `t` WHERE a <> 'b''c' AND d >= 0x1F;",
    '<div class="note">&amp; a[0] = {"key": "value"}; // https://example.org/?q=1#top',
    "שלום עולם, مرحبا بالعالم, नमस्ते दुनिया, สวัสดีชาวโลก",
    "zero\u200bwidth, soft\u00adhyphen, no\u00a0break, wide\u3000space, line\u2028break",
    "``quoted'' and \u201ccurly\u201d, \u2018single\u2019, \u2026 \u2013 \u2014",
    "  leading, trailing and   many   spaces  ",
    "½ of ² and ① in Ⅳ, ℃, №, ™",
    "<mask> [MASK] <s> </s> [CLS] [SEP] <unk> [UNK]",
)
_PARTS = tuple(word for text in _TEXTS for word in text.split(" ") if word)

#: the vocabulary of the models
WORDS = tuple(f"word{i}" for i in range(70))
PIECES = ("##s", "##ed", "##ing", "##er", "##ly")
PUNCTUATION = tuple(",.?!-")


def make_texts(count: int) -> list[str]:
    """Return `count` different texts: plain ones, mixtures of their words, and long ones."""
    rng = random.Random(0)
    texts = dict.fromkeys(_TEXTS)
    while len(texts) < count:
        words = rng.choices(_PARTS, k=rng.choice((1, 3, 8, 20, 400)))
        texts[rng.choice((" ", " ", "", "  ")).join(words)] = None
    return list(texts)


def make_pairs(count: int) -> list[tuple[str, str]]:
    """Return questions and contexts in the models' vocabulary; some contexts are longer than the models' inputs."""
    rng = random.Random(0)

    def text(words: int) -> str:
        suffixes = ["", *(piece[2:] for piece in PIECES)]
        chosen = (rng.choice(WORDS) + rng.choice(suffixes) + rng.choice(suffixes) for _ in range(words))
        return " ".join(word + (rng.choice(PUNCTUATION) if rng.random() < 0.2 else "") for word in chosen)

    return [(text(rng.randint(1, 8)), text(rng.choice((1, 5, 20, 40, 200)))) for _ in range(count)]
