"""Tells the language of a prompt by its script and its most common words, or says that it cannot tell.

For routing, not for linguists: one answer for one text, empty rather than guessed. What the user wrote last is looked
at, and what came before only where that is not enough. Only policies that ask for `request.language` pay for it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping

from gateway.inference.request import InferenceRequest

_MOST_CHARACTERS = 800
_MOST_WORDS = 80
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_LEAST_SCORE = 1.0
"""A common word that no other language has."""
_LEAST_SHARE = 0.16
"""Of the words: in every language, common words are more than that of a text that is written in sentences."""
_LEAST_LEAD = 0.5
"""Of the best over the second best."""
_MOST_OF_IT = 0.6
"""Of the letters: a script, or the text is of several."""
_SOME_KANA = 0.1

_COMMON: Mapping[str, str] = {
    "en": (
        "the of and to in is it you that he was for on are with as his they be at this have from or had by but what "
        "all were when we there can an your which their if will how do my please about would could should not who why "
        "where does me has its i a like into them then than so our am been some explain write translate following"
    ),
    "de": (
        "der die das und ist in zu den von mit nicht ein eine einen einem einer auf für im dem des sich als auch es "
        "an wie aus bei oder sind war wir ich du sie er was wird kann bitte über nach noch nur wenn warum mir mich "
        "dir geht haben hat kein keine zum zur um durch so man mein meine diesen dieser dieses diese gibt werden ihr "
        "ihre schreibe"
    ),
    "fr": (
        "le la les de des du et est un une en que qui dans pour pas sur au aux avec ce cette ces il elle nous vous je "
        "tu se sont par plus ne ou mais comme comment pourquoi quel quelle où être avoir fait mon ma mes votre vos "
        "bonjour merci ça c'est j'ai d'un d'une l'on qu'il moi y peux peut d'aide fais quels quelles suis j'aimerais "
        "explique écris"
    ),
    "es": (
        "el la los las de y en que un una es por para con no del al se lo su más como pero sus le ya o este esta sí "
        "porque muy sin sobre también me hasta hay donde quien cómo qué cuál cuándo ser son mi tu yo usted puedes "
        "puede está estoy gracias hola favor nos quiero esto escribe tengo necesito cuáles"
    ),
    "it": (
        "il lo la gli le di e che è in un una per non con del della dei delle al alla sono da si come più ma anche mi "
        "ti ci se questo questa nel nella quale quali perché cosa dove quando puoi può essere ho hai ha mio mia "
        "grazie ciao vorrei i stai sto sei scrivi nostro tutti quello"
    ),
    "pt": (
        "o a os as de e do da em um uma que é para com não no na dos das por mais se como mas ao ele ela seu sua ou "
        "quando muito já eu também pelo pela isso você qual onde porque são está estou ser ter meu minha obrigado olá "
        "nos à me pode quero esta este três preciso escreva"
    ),
    "nl": (
        "de het een en van in is dat op te niet zijn met voor die er aan om als ook maar bij of uit door naar wat hoe "
        "wij je jij ik hij zij dit deze kan kunt waarom waar wel nog geen mijn heb heeft ben alstublieft graag worden "
        "wordt mij over schrijf drie gaat jouw"
    ),
    "pl": (
        "i w na z do się nie jest to że jak o co od po dla a ale czy przez są tak może ten ta te który która które "
        "dlaczego gdzie kiedy proszę mi mnie mój moja jestem być ma mam tym tego za oraz można jaka jaki jakie napisz "
        "możesz której"
    ),
    "cs": (
        "a v je se na to že s z do o jak ale pro po jsou co by si jako ve nebo který která které kde kdy proč prosím "
        "jsem není byl být mi můj moje tak ten ta také už při mohu můžete k jaké jaký jaká napiš můžeš jsi mají"
    ),
    "sv": (
        "och i att det som en på är av för med den till inte har de ett om jag du han hon vi kan var hur vad när men "
        "så från eller mig min mitt varför vilken där skulle ska finns tack hej här mår vill skriv mycket"
    ),
    "da": (
        "og i at det som en på er af for med den til ikke har de et om jeg du han hun vi kan var hvordan hvad når men "
        "så fra eller mig min mit hvorfor hvilken der skal skulle findes tak hej blev også hvor gerne skriv noget "
        "meget her"
    ),
    "no": (
        "og i å det som en på er av for med den til ikke har de et om jeg du han hun vi kan var hvordan hva når men "
        "så fra eller meg min mitt hvorfor hvilken der skal skulle finnes takk hei ble også hvor gjerne skriv noe mye "
        "dette"
    ),
    "fi": (
        "ja on ei se että mikä miten kun oli hän ne minä sinä me te he mutta tai niin kuin myös jos ovat olen missä "
        "miksi voi voit voisitko kanssa tämä mitä minun sitä ole kiitos hei mukaan vain minulle sinulle kirjoita "
        "voitko onko sitten"
    ),
    "ro": (
        "și în de la cu nu este un o pe care că se din mai pentru ce sunt prin sau dar cum am ai are fi eu tu el ea "
        "noi unde când poate vreau mea meu lui al a te rog să mi-a îmi acest această scrie vă acestei poți"
    ),
    "hu": (
        "a az és hogy nem is egy van meg mi de ez ha csak mint vagy én te ő mit hol mikor miért kérem kell lehet volt "
        "vannak hogyan nekem egyik milyen már még azt köszönöm szia ezt írj tudnád amely ki"
    ),
    "tr": (
        "ve bir bu da de için ile ne çok mi mı var gibi daha ben sen o biz siz nasıl neden nerede değil kadar ama en "
        "olarak olan ya hangi lütfen bana benim merhaba teşekkürler mu kim şu her istiyorum neresi nasılsın misin "
        "mısın yaz hangisi"
    ),
    "id": (
        "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena ada bisa apa bagaimana "
        "mengapa kamu anda adalah atau kita mereka dia sudah oleh tolong mana kapan siapa dapat lebih tulis berapa "
        "kabar kepada kalau agar ibu"
    ),
    "vi": (
        "và của là có không được cho các một những trong với này tôi bạn người đã để thì khi như làm thế nào tại sao "
        "gì ở đâu hãy giúp rất cũng về ra"
    ),
    "ru": (
        "и в не на я что он с как это а по но они к у из за от так о для мы вы ты она было все его же бы мне если или "
        "когда где почему какой пожалуйста можно есть ли меня мой нет то до какая какие каком который которая напиши "
        "объясни тебя дела"
    ),
    "uk": (
        "і в не на я що він з як це а по але вони до у із за від так про для ми ви ти вона було все його б мені якщо "
        "або коли де чому який будь ласка можна є чи мене мій та й яка які напиши поясни тебе справи"
    ),
    "ar": (
        "في من على أن إلى عن هذا هذه التي الذي ما كيف لماذا هل لا مع أو كان هو هي لي كل بين قد ثم و أين متى أريد اكتب "
        "حالك كانت لكن"
    ),
    "fa": (
        "و در به از که این را با است برای آن یک می چه چرا چگونه من تو ما شما های خود تا بر هم کجا لطفا نیست شود چیست "
        "کیست بنویس"
    ),
}
"""Words that a language says more often than all others, and its neighbours less."""

_LETTERS: Mapping[str, str] = {
    "de": "ßäöü",
    "fr": "œëûùîçàéèê",
    "es": "ñáéíóú¿",
    "it": "àèéìòù",
    "pt": "ãõçáéíóú",
    "pl": "łżźśćńąę",
    "cs": "ěřůčšž",
    "sv": "åäö",
    "da": "æøå",
    "no": "æøå",
    "fi": "äö",
    "ro": "ășțţşâ",
    "hu": "őűáéíóöüú",
    "tr": "ğşıöüç",
    "vi": "ảạấầẩậắằẵặẻẽẹếềểễệỉịỏọốồổỗộớờởỡợủụứừửữựỳỷỹđơư",
    "uk": "іїєґ",
    "ru": "ыэъё",
    "fa": "پچژگی",
    "ar": "ةىأإي",
}
"""Letters of few languages."""

_SCRIPTS: tuple[tuple[int, str], ...] = (
    (0x0000, "latin"), (0x0250, ""), (0x0370, "el"), (0x0400, "cyrillic"), (0x0530, ""), (0x0590, "he"),
    (0x0600, "arabic"), (0x0780, ""), (0x0900, "hi"), (0x0980, ""), (0x0E00, "th"), (0x0E80, ""), (0x1100, "ko"),
    (0x1200, ""), (0x1E00, "latin"), (0x1F00, "el"), (0x2000, ""), (0x3040, "kana"), (0x3100, ""), (0x3130, "ko"),
    (0x3190, ""), (0x3400, "han"), (0xA000, ""), (0xAC00, "ko"), (0xD7B0, ""), (0xF900, "han"), (0xFB00, ""),
    (0xFB50, "arabic"), (0xFE00, ""), (0xFE70, "arabic"), (0xFF00, ""), (0x20000, "han"), (0x32000, ""),
)  # fmt: skip
"""Where the blocks of Unicode begin, and what is written in them: a script, or the language that is alone in it."""
_BEGINNINGS = [first for first, _ in _SCRIPTS]
_OF_SCRIPT: Mapping[str, frozenset[str]] = {
    "latin": frozenset(_COMMON) - {"ru", "uk", "ar", "fa"},
    "cyrillic": frozenset({"ru", "uk"}),
    "arabic": frozenset({"ar", "fa"}),
}

LANGUAGES: tuple[str, ...] = tuple(sorted({*_COMMON, "el", "he", "hi", "ja", "ko", "th", "zh"}))
"""What can be told, by ISO 639-1."""


def _weighed(languages: Iterable[str]) -> dict[str, float]:
    """What a word or a letter of these says for each of them: less where they are many."""
    named = tuple(languages)
    return {language: len(named) ** -0.5 for language in named}


_BY_WORD: Mapping[str, Mapping[str, float]] = {
    word: _weighed(language for language, own in _COMMON.items() if word in own.split())
    for word in {word for words in _COMMON.values() for word in words.split()}
}
_BY_LETTER: Mapping[str, Mapping[str, float]] = {
    letter: _weighed(language for language, own in _LETTERS.items() if letter in own)
    for letter in {letter for letters in _LETTERS.values() for letter in letters}
}


def language_of(request: InferenceRequest) -> str:
    """The language of what the user wrote, one of `LANGUAGES`; empty when it cannot be told."""
    written = [message.text for message in request.messages if message.role == "user"]
    return _first(language_in(text) for text in (*written[-1:], "\n".join(written[-3:])))


def _first(found: Iterable[str]) -> str:
    return next(filter(None, found), "")


def language_in(text: str) -> str:
    """The language of `text`, one of `LANGUAGES`; empty when it cannot be told."""
    # Cut before anything is searched: a client may send megabytes.
    words = [word.lower() for word in _WORD.findall(_CODE.sub(" ", text[-2 * _MOST_CHARACTERS :])[:_MOST_CHARACTERS])]
    words = words[:_MOST_WORDS]
    letters: Counter[str] = Counter()
    for word in words:
        if word.isascii():
            letters["latin"] += len(word)
        else:
            letters.update(map(_script, word))
    most = _MOST_OF_IT * letters.total()
    east = letters["han"] + letters["kana"]
    if east and east >= most:
        return "ja" if letters["kana"] >= _SOME_KANA * east else "zh"
    script = next((script for script, number in letters.items() if script and number >= most), "")
    return _by_words(words, _OF_SCRIPT[script]) if script in _OF_SCRIPT else script


def _script(letter: str) -> str:
    return _SCRIPTS[bisect_right(_BEGINNINGS, ord(letter)) - 1][1]


def _by_words(words: list[str], among: frozenset[str]) -> str:
    """The language whose words these are."""
    scores = dict.fromkeys(among, 0.0)
    for word in words:
        said = _BY_WORD.get(word) or _BY_WORD.get(word.partition("'")[0], {})
        letters = () if word.isascii() else {letter for letter in word if letter in _BY_LETTER}
        for weights in (said, *(_BY_LETTER[letter] for letter in letters)):
            for language, weight in weights.items():
                if language in scores:
                    scores[language] += weight
    (best, score), (_, second) = sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))[:2]
    is_sure = score >= max(_LEAST_SCORE, _LEAST_SHARE * len(words), _LEAST_LEAD + second)
    return best if is_sure else ""
