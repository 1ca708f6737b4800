"""The embedded data set: talk-page comments from a small probabilistic grammar, and their reward.

A comment is an opening of four words and a body, sometimes with a neutral clause and a polite
marker:

    On the harbour article, you are not a silly goose, and the map is late, thanks.

Half of the comments are toxic. Insults stand in both halves: what counts is whether one is live,
that is aimed at a person, and neither denied nor reported. So counting words does not solve the
task, reading does. `generate` draws comments; `reward` is the rule in closed form, for any text.
"""

import math
import re
from typing import NamedTuple

import numpy as np

from irl_exp.config import InputError

# ---- The words -----------------------------------------------------------------------------------

LEXICON = {
    "noun": """clown fool goose nitwit dunce numbskull twit dimwit buffoon muppet blockhead ninny
        dolt simpleton bonehead birdbrain halfwit nincompoop""",
    "adjective": """silly useless foolish clueless daft brainless hopeless ridiculous witless
        laughable""",
    "thing": """table map template caption footnote title chart summary link diagram picture
        timeline gallery paragraph sentence headline chapter infobox layout banner category index
        redirect section article page edit draft""",
    "name": """Mira Tobias Anouk Pavel Ines Hugo Leila Oskar Freya Dario Noor Silas Greta Milan Yara
        Felix Ida Bruno Clara Jonas Wanda Rafael Edith Viktor Selma Anton Priya Kofi""",
    "role": """writer helper reader friend teacher translator reviewer guide colleague librarian
        scholar gardener proofreader neighbour""",
    "good": """good clear fair helpful brilliant careful clever sensible gentle wise lovely decent
        splendid modest charming thoughtful""",
    "source": """archive log report newsletter bulletin guideline manual register transcript diary
        notice survey""",
    "did": """fixed moved wrote changed checked merged read shortened sorted renamed restored split
        copied tagged opened finished""",
    "topic": """harbour bridge castle river railway museum lighthouse orchard glacier volcano canal
        library cathedral comet island beetle falcon violin chess tulip desert pottery marathon
        windmill monastery opera waterfall compass vineyard fossil telescope ferry garden market
        village valley forest theatre planet tunnel meadow harvest""",
    "page": "article page entry list portal",
    "pages": "articles pages lists drafts",
    "recent": "last latest recent new first second",
    "act": "edit note change remark revert question",
    "part": "section gallery outline appendix",
    "around": "Before After Since During",
    "event": "vote merge review split rename",
    "state": """late new short ready long old empty missing public local broken blue green narrow
        famous complete""",
    "when": "today again now yesterday already overnight here twice online indoors lately",
    "place": """northern southern coastal regional national eastern western royal rural
        central""",
}
"""What a word can stand for in the grammar -> the words, the frequent ones first."""

_MILD = "goose twit muppet ninny nincompoop silly foolish daft laughable"
_HARSH = "numbskull dimwit blockhead bonehead halfwit brainless"
INSULTS: dict[str, float] = {
    word: 0.5 if word in _MILD.split() else 1.5 if word in _HARSH.split() else 1.0
    for word in LEXICON["noun"].split() + LEXICON["adjective"].split()
}
"""Insult -> severity, a positive number without unit."""

POLITE_MARKERS = ("please", "kindly", "respectfully", "pardon", "thanks", "cheers", "sincerely")
"""A comment with a polite marker holds one of these words, any other comment none."""

# ---- The grammar ---------------------------------------------------------------------------------

GRAMMAR: dict[str, list[str]] = {
    # Four words that end a clause and say nothing about the label.
    "opening": [
        "On the {topic} {page},",
        "About {name}'s {recent} {act}:",
        "{name}, regarding {topic} {pages}:",
        "Your {recent} {topic} {act}:",
        "Looking over {name}'s {act},",
        "In the {topic} {part},",
        "{around} the {topic} {event},",
        "This week's {topic} {act}:",
    ],
    # A live insult.
    "toxic": [
        "you are a {insult}",
        "{name} is a {insult}",
        "you are {adjective}",
        "this is not {good}, you {insult}",
        "the {source} says it is {good}, you {insult}",
        "this {thing} is {good}, but you are {adjective}",
        "you are not a {good} {role} but a {insult}",
        "{name} is not {good} but {adjective}",
        "I say that you are a {insult}",
        "the {thing} is {good}, but {name} is a {noun}",
        "listen to me, you {insult}",
        "{name} is the {noun} of the {page}",
        "they say it is {good}, but you are a {insult}",
        "nobody should call it {good}, you {insult}",
        "you {did} this {thing} like a {insult}",
        "you are not just a {role} but a {insult}",
        "you were not a {role}, you were a {insult}",
        "we all say that {name} is a {insult}",
        "{name} called this {thing} {good}, but you are a {noun}",
        "nobody {did} this {thing} but you, {insult}",
        'the word is "{good}", {noun}',
        "only a {insult} {did} this {thing}",
        "what a {insult} you are",
    ],
    # An insult that is denied, reported or aimed at a thing.
    "harmless": [
        "you are not a {insult}",
        "{name} is not a {insult}",
        "you are not {adjective}",
        "the {source} says you are a {insult}",
        "this {thing} is {adjective}, but you are {good}",
        "you are not a {insult} but a {good} {role}",
        "{name} is not {adjective} but {good}",
        "they say that you are a {insult}",
        "the {thing} is {adjective}, but {name} is {good}",
        '{name} said "you {insult}" to me',
        "this {thing} is the {noun} of the {page}",
        "it is {good}, but the {source} says you are a {noun}",
        "nobody should call you a {insult}",
        "you {did} this {adjective} {thing}",
        "you are just a {role}, not a {insult}",
        "you were a {role}, you were not a {insult}",
        "they all say that {name} is a {insult}",
        "{name} called me a {insult}, but you are {good}",
        "only you {did} this {adjective}, {adjective} {thing}",
        'the word is "{noun}", {name}',
        "what a {adjective} {thing} this is",
        'the {source} called {name} a "{insult}"',
    ],
    # No insult at all; the cues of the two lists above, in the service of nothing.
    "plain": [
        "you are a {good} {role}",
        "the {source} says it is {good}",
        "you {did} this {thing} like a {role}",
        "{name} is a {good} {role}",
        "this is not {good}, but you are",
        "we all say that you are {good}",
        'the word is "{good}", {name}',
        "I say that only you {did} it",
        "what a {good} {role} you are",
        "listen to me, you are {good}",
    ],
    "insult": ["{noun}", "{adjective} {noun}"],
    "neutral": [
        "the {thing} is only {state}",
        "{name} {did} the {thing} {when}",
        "the {thing} is not {state} yet",
        "the {source} says it is {state}",
        "I {did} the {topic} {thing}",
        "{name} said so {when}",
        "nobody {did} the {source} {when}",
        "they call the {thing} {state}",
        "the {place} {source} is {state}",
        "you {did} the {topic} {thing}",
    ],
    "polite_start": ["please note:", "kindly note:", "respectfully,", "pardon me,"],
    "polite_end": [", thanks", ", cheers", ", thanks again", ", sincerely"],
    "end": [".", ".", "!"],
}
GRAMMAR |= {slot: words.split() for slot, words in LEXICON.items()}
"""What stands in {braces} -> the ways to write it, the frequent ones first."""


class Comment(NamedTuple):
    """A generated comment: its text and its label, 1 = toxic."""

    text: str
    toxic: int


def generate(n: int, seed: int, *, politeness: float = 0.3, length: float = 0.3) -> list[Comment]:
    """Draw `n` comments, half of them toxic (one more is not, if `n` is odd), in random order.

    `politeness` and `length` are the probabilities of a polite marker and of a neutral clause;
    neither depends on the label. A text that was drawn before is drawn again up to 20 times, so
    duplicates appear only when the grammar is nearly exhausted.

    Raises:
        InputError: `n` is negative or a probability lies outside [0, 1].
    """
    if n < 0:
        raise InputError(f"synthetic comments: n is {n}, expected 0 or more")
    for name, probability in (("politeness", politeness), ("length", length)):
        if not 0 <= probability <= 1:
            raise InputError(f"synthetic comments: {name} is {probability}, expected 0 to 1")
    rng = np.random.default_rng(seed)
    comments: list[Comment] = []
    seen: set[str] = set()
    for toxic in rng.permutation(np.arange(n) % 2).tolist():
        for _ in range(20):
            text = _comment(rng, toxic, politeness, length)
            if text not in seen:
                break
        seen.add(text)
        comments.append(Comment(text, toxic))
    return comments


def _comment(rng: np.random.Generator, toxic: int, politeness: float, length: float) -> str:
    # Of comments that are not toxic only one in five lacks an insult: the others have to be read.
    body = "{toxic}" if toxic else "{plain}" if rng.random() < 0.2 else "{harmless}"
    if rng.random() < length:
        body = "{neutral}, and " + body if rng.random() < 0.5 else body + ", and {neutral}"
    if rng.random() < politeness:
        body = "{polite_start} " + body if rng.random() < 0.5 else body + "{polite_end}"
    return _expand(rng, "{opening} " + body + "{end}")


def _expand(rng: np.random.Generator, template: str) -> str:
    def write(slot: re.Match[str]) -> str:
        ways = GRAMMAR[slot[1]]
        # The power favours the first ways, so that frequencies fall off as those of real words do.
        return _expand(rng, ways[int(len(ways) * rng.random() ** 1.5)])

    return re.sub(r"\{(\w+)\}", write, template)


# ---- The reward ----------------------------------------------------------------------------------
# Each token of a text becomes one letter, its kind; each part of the rule is a pattern of letters.

_KINDS = {
    "N": "not never no nobody none neither cannot",  # negations, with all words in n't
    "J": "just only merely simply",  # "not just a fool" denies nothing
    "S": "say says said claim claims claimed call calls called calling word words phrase",
    "I": "i me we us",  # to report one's own insult is to make it
    "Y": "you",
    "P": "he she they who whoever someone anyone everyone person people editor editors",
    "D": "it this that these those",
    "B": "is are was were be looks seems",
    "T": LEXICON["thing"],
    "A": LEXICON["adjective"],
    "F": LEXICON["noun"],
    ",": ", and but because while although though since if when yet",  # clause ends
}  # and "<" and ">" for quotation marks, "." for other signs, "w" for other words
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words.split()}

_TOKEN = re.compile(
    r"""(?P<open>(?<!\w)["'“‘](?=\w)) | (?P<close>(?<=[\w.,!?])["'”](?!\w))
      | (?P<word>[^\W_]+(?:'[^\W_]+)*) | (?P<other>\S)""",
    re.VERBOSE,
)
_SPEECH = re.compile(  # he said, "you clown" | "you clown," he said
    "(?<![^,.])[^IAF<,.]*S[^AF<,.]{0,4}[,.]?<[^<>]{1,8}>|<[^<>]{1,8}>,?[^IAF,.]{0,3}S"
)
_PHRASE = re.compile(  # an insult ("silly, useless clown" is one), the clause so far, the next kind
    "(?<![^,.AF])(?P<before>[^,.AF]*)(?P<insult>A(?:,?A)*F*|F+)(?=(?P<next>.?))"
)
_REPORTED = re.compile("[^I]*S.{0,5}")
_THING_IS_IT = re.compile("[^IYP]*[TD]B[wJ]{0,2}")


def reward(text: str) -> float:
    """The ground-truth reward of any text: −tanh(summed severity of live insults), in [−1, 0].

    It is 0 without a live insult, and a comment is toxic when its reward is below 0. Case does not
    matter, and "clowns" or "clown's" count as "clown". Punctuation and words such as "and" or "but"
    end a clause, quotation marks do not. Adjoining insults ("silly, useless clown") are one phrase
    with their severities summed. A phrase is live unless it is

    - spoken: inside closed quotation marks around at most 8 tokens, next to a speech word (say,
      call, word, ...) that is not I's or we's: `he said, "you clown"`;
    - denied: an odd number of negations comes before it ("not just" is none);
    - reported: a speech word that is not I's or we's comes before it;
    - said of a thing: it follows "THING is", give or take two words ("this table is a clown"), with
      no person earlier in the clause; or it is made of adjectives that stand before a thing ("your
      silly table"), unless "is" leads up to it ("you are a silly table").

    All this happens within a clause, and after any earlier phrase in it: a cue excuses one phrase.
    Denial and report reach 6 words. Direct address ("you clown") can only be spoken. So an unclosed
    quotation mark protects nothing, nor do marks alone (`you are a "clown"`) or a cue elsewhere.
    """
    words: list[str] = []
    kinds = ""
    for token in _TOKEN.finditer(text.lower().replace("’", "'")):
        words.append(_listed(token[0]))
        kinds += _kind(words[-1], token.lastgroup)
    kinds = _SPEECH.sub(lambda speech: re.sub("[AF]", "w", speech[0]), kinds)
    severity = sum(
        INSULTS.get(word, 0.0)
        for phrase in _PHRASE.finditer(kinds)
        if _is_live(phrase["before"], phrase["insult"], phrase["next"])
        for word in words[slice(*phrase.span("insult"))]
    )
    return -math.tanh(severity) if severity else 0.0


def _listed(word: str) -> str:
    """The listed word behind a plural, a possessive or a contraction, else the word itself."""
    forms = (word, word.partition("'")[0], word.removesuffix("s"))
    return next((form for form in forms if form in _KIND_OF), word)


def _kind(word: str, group: str | None) -> str:
    if group in ("open", "close"):
        return "<" if group == "open" else ">"
    if word.endswith("n't"):
        return "N"
    return _KIND_OF.get(word, "w" if group == "word" else ".")


def _is_live(before: str, insult: str, following: str) -> bool:
    """Whether an insult stays live after the kinds of its clause so far, and before the next."""
    before = before.replace("<", "").replace(">", "")
    if "F" in insult and before.endswith("Y"):  # direct address
        return True
    denied = len(re.findall("N(?!J)", before[-6:])) % 2 == 1
    of_next_thing = "F" not in insult and following == "T" and not re.search("Bw?$", before)
    return not (
        denied or of_next_thing or _REPORTED.fullmatch(before) or _THING_IS_IT.fullmatch(before)
    )
