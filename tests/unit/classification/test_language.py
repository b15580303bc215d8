"""The language of a prompt: told from plain sentences, and not told from what has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.classification.language import LANGUAGES, language_in, language_of
from gateway.inference.request import InferenceRequest, Message

SENTENCES = {
    "ar": ("كيف أستطيع تغيير كلمة السر؟", "هذا الطلب لم يصل إلى البيت"),
    "cs": ("Kde najdu svou poslední fakturu a kdy ji mám zaplatit?", "Nevím, jestli je to správně."),
    "da": ("Hvad koster det, og hvornår kommer pakken?", "Jeg ved ikke, om det er rigtigt, kan du hjælpe mig?"),
    "de": ("Wann kommt mein Paket an?", "Ich weiß nicht, ob das richtig ist."),
    "el": ("Πού είναι το πακέτο μου;", "Δεν ξέρω αν είναι σωστό."),
    "en": ("When does my parcel arrive?", "I do not know whether that is right."),
    "es": ("¿Cuándo llega mi paquete?", "No sé si esto es correcto."),
    "fa": ("بسته من کجا است؟", "نمی‌دانم که این درست است"),
    "fi": ("Missä minun pakettini on?", "En tiedä, onko tämä oikein."),
    "fr": ("Quand est-ce que mon colis arrive ?", "Je ne sais pas si c'est juste."),
    "he": ("איפה החבילה שלי?", "אני לא יודע אם זה נכון"),
    "hi": ("मेरा पार्सल कहाँ है?", "मुझे नहीं पता कि यह सही है"),
    "hu": ("Mikor érkezik meg a csomagom?", "Nem tudom, hogy ez helyes-e."),
    "id": ("Kapan paket saya akan tiba?", "Saya tidak tahu apakah ini benar."),
    "it": ("Quando arriva il mio pacco?", "Non so se questo è giusto."),
    "ja": ("荷物はいつ届きますか？", "これが正しいかどうかわかりません"),
    "ko": ("제 소포는 언제 도착하나요?", "이것이 맞는지 모르겠어요"),
    "nl": ("Wanneer komt mijn pakket aan?", "Ik weet niet of dat goed is."),
    "no": ("Hva koster det, og når kommer pakken til meg?", "Jeg vet ikke om dette er riktig, kan du hjelpe meg?"),
    "pl": ("Kiedy przyjdzie moja paczka?", "Nie wiem, czy to jest poprawne."),
    "pt": ("Quando chega a minha encomenda?", "Não sei se isso está certo."),
    "ro": ("Când ajunge pachetul meu?", "Nu știu dacă este corect."),
    "ru": ("Когда придёт моя посылка?", "Я не знаю, правильно ли это."),
    "sv": ("När kommer mitt paket?", "Jag vet inte om det är rätt, kan du hjälpa mig?"),
    "th": ("พัสดุของฉันอยู่ที่ไหน", "ฉันไม่รู้ว่าถูกต้องหรือไม่"),
    "tr": ("Paketim ne zaman gelecek ve nerede?", "Bunun doğru olup olmadığını bilmiyorum ama bana yardım et."),
    "uk": ("Коли прийде моя посилка?", "Я не знаю, чи це правильно."),
    "vi": ("Khi nào gói hàng của tôi đến?", "Tôi không biết điều này có đúng không."),
    "zh": ("我的包裹什么时候到？", "我不知道这是否正确"),
}
"""None of them was looked at while the words were chosen."""

NOTHING = (
    "",
    "42",
    "def f(x): return x + 1",
    "Anna Schmidt, Berlin",
    "asdf qwer zxcv",
    "https://example.com/the/of/and/is",
    "```python\nfor x in the_list: if x is not None and x: return\n```",
    "Paris Berlin London Madrid",
    "lorem ipsum dolor sit amet",
    "npm install -g typescript",
    "Привет hello שלום",
    "\0\ud800",
)


def test_the_documentation_lists_every_language():
    """What can be told stands in the README."""
    readme = Path(__file__).parents[3].joinpath("README.md").read_text("utf-8")
    assert ", ".join(LANGUAGES) in " ".join(readme.split())


@pytest.mark.parametrize("language", LANGUAGES)
def test_plain_sentences_of_every_language_are_told(language):
    """Every language that a policy may name is told from sentences as a client would write them."""
    assert [language_in(sentence) for sentence in SENTENCES[language]] == [language, language]


@pytest.mark.parametrize("text", NOTHING)
def test_what_has_no_language_is_given_none(text):
    """Code, names, numbers, made-up words and mixed scripts are no language: empty, never guessed."""
    assert language_in(text) == ""


def test_the_user_s_last_words_count():
    """What the user wrote last is looked at; only where that says nothing, what came before, and never the system's."""

    def asked(*messages: tuple[str, str]) -> str:
        told = tuple(Message(role, text) for role, text in messages)
        return language_of(InferenceRequest(surface="chat", model="m", messages=told, fields={}))

    english, german = ("user", SENTENCES["en"][0]), ("user", SENTENCES["de"][0])
    assert asked(english, german) == "de"
    assert asked(german, ("assistant", SENTENCES["fr"][0]), ("user", "42")) == "de"
    assert asked(("system", SENTENCES["en"][0]), ("user", "42")) == ""
