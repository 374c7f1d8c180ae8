"""Made sentences with the names of people, organizations, places and events, as CoNLL files with IOB2 tags.

Nothing of the dev file occurs in the training file: no template, no sentence without its names, and no name. The
script checks that.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

Sentence = list[tuple[str, str]]  # word, tag

#: [a|b] is a choice, {PER} a name
TRAIN_TEMPLATES = """
{PER} was born in {LOC} [in 1952|shortly after the war|on a cold morning] .
{PER} , who grew up near {LOC} , now [works for|advises|directs] {ORG} .
{ORG} [said|announced|confirmed] on [Monday|Friday] that {PER} would step down [next month|in the spring] .
[Shares|Bonds] of {ORG} [fell|rose] [sharply|slightly] after a report from {LOC} .
The [mayor|governor] of {LOC} met {PER} [yesterday|last night] .
[Thousands|Hundreds] of people left {LOC} before the storm [arrived|turned north] .
{ORG} will open a [factory|warehouse] in {LOC} [this summer|by the end of the year] .
I [talked|spoke] to {PER} about the [budget|schedule] .
{PER} and {PER} [won|lost] the final in {LOC} .
Nobody at {ORG} [wanted|was ready] to comment .
The train from {LOC} to {LOC} was [late|full] again .
[Critics|Readers] praised {PER} for a [quiet|funny] second novel .
{ORG} bought a [small|large] rival for [two|five] billion dollars .
After the match , coach {PER} [thanked|blamed] the referee .
In {LOC} , the price of [bread|rice] has doubled .
{PER} studied [law|physics] before joining {ORG} .
The [river|road] runs through {LOC} and {LOC} .
Dr. {PER} [examined|treated] the patients himself .
According to {ORG} , [sales|profits] grew by [three|seven] percent .
The weather will be [mild|windy] and dry .
She [bought|sold] two old chairs at the market .
No one [noticed|mentioned] the mistake until Thursday .
We had [dinner|lunch] with {PER} in a restaurant near the station .
[Police|Firefighters] in {LOC} closed the bridge for an hour .
{ORG} hired {PER} as its [chief economist|head of research] .
The [court|judge] ruled against {ORG} in a case about [patents|taxes] .
[Visitors|Tourists] come to {LOC} for its [beaches|museums] .
Before {EVENT} , {PER} trained [alone|with a younger team] .
{LOC} will host {EVENT} [for the first time|again] .
[Tickets|Flights] for {EVENT} were sold out within [minutes|a day] .
{ORG} pays for the [lights|stage] at {EVENT} .
More than forty countries took part in {EVENT} [last year|this time] .
Did {PER} really [leave|join] {ORG} ?
[My neighbour|His sister] has worked at {ORG} since March .
An [earthquake|explosion] shook {LOC} [before dawn|at noon] .
The [museum|library] shows letters that {PER} wrote to {PER} .
{PER} [denied|repeated] the claim in an interview .
It rained [all day|without a break] in {LOC} .
Lawyers for {PER} asked the court to [wait|decide quickly] .
The guide explained how {LOC} was [rebuilt|divided] after the fire .
[Engineers|Students] from {ORG} visited a school in {LOC} .
A spokesman for {ORG} , {PER} , [declined|promised] to answer .
""".strip().splitlines()
DEV_TEMPLATES = """
When {PER} moved to {LOC} , the family [followed|stayed] .
Workers at {ORG} [stopped work|returned to their desks] on Tuesday .
The [painter|architect] {PER} spent [most|much] of her life abroad .
[Investors|Analysts] doubt that {ORG} can repay the loan .
[Snow|Fog] delayed several planes at the airport of {LOC} .
With {PER} injured , the team needs [a new captain|some luck] .
The [treaty|agreement] was signed in {LOC} by the two presidents .
Why does {ORG} still [rent|own] that building ?
{PER} will [sing|speak] at {EVENT} .
Farmers around {LOC} [fear|expect] a dry autumn .
[Guests|Athletes] arrived early for {EVENT} , which began on Sunday .
The chairman of {ORG} dismissed rumours of a [merger|sale] .
They [walked|drove] home along the canal .
The results will be [published|discussed] in the morning .
[Letters|Photographs] by {PER} were found in an attic in {LOC} .
{ORG} recalled [ten thousand|many] cars because of faulty brakes .
Even {PER} could not [repair|explain] it .
Ferries between {LOC} and {LOC} run every [hour|morning] .
Last year {EVENT} attracted a [huge|disappointing] crowd .
[Voters|Shopkeepers] in {LOC} gave {PER} a warm welcome .
The report , written by {PER} of {ORG} , [lists|describes] the causes .
Our teacher read us a [story|poem] about a fox and a crow .
{ORG} and {ORG} will [share|build] a laboratory .
Fans of {PER} waited outside for [hours|an autograph] .
""".strip().splitlines()

TRAIN_NAMES = {
    "FIRST": """
        Anna, Peter, Maria, James, Sofia, David, Laura, Thomas, Elena, Robert, Julia, Martin, Clara, Paul, Irene,
        Simon, Nora, Victor, Alice, Hugo, Diana, Oscar, Emma, Felix, Marta, Adam, Ruth, Ivan, Carla, Leon
    """,
    "LAST": """
        Novak, Keller, Rossi, Brown, Fischer, Silva, Murphy, Larsen, Moreau, Kowalski, Jensen, Costa, Weber, Taylor,
        Lindgren, Horvat, Ortega, Bauer, Clarke, Popescu, Romano, Virtanen, Ramos, Schmidt, Evans, Dubois, Santos,
        Walker, Petrov, Haas
    """,
    "LOC": """
        Berlin, Madrid, Chicago, Kenya, Norway, Oslo, Lisbon, Vienna, Toronto, Brazil, Prague, Denver, Cairo, Osaka,
        Poland, Geneva, Boston, Chile, Hamburg, Naples, Seattle, Ghana, Dublin, Athens, New Mexico, Cape Town, Hong
        Kong, Sri Lanka, San Diego, Nova Scotia
    """,
    "ORG": """
        Siemens, Microsoft, Toyota, Nestle, Boeing, Unicef, Greenpeace, Pfizer, Volvo, Barclays, Intel, Lufthansa,
        Shell, Reuters, Oxfam, General Motors, Goldman Sachs, Deutsche Bank, the World Bank, Stanford University, the
        University of Leeds, Red Cross, Johnson & Johnson, Procter & Gamble, the Bank of Spain, Harbour Holdings Ltd,
        Brightwater Group
    """,
    "EVENT": """
        the World Cup, the Tour de France, the Olympic Games, the Berlin Marathon, Oktoberfest, the Super Bowl,
        Wimbledon, the Frankfurt Book Fair, the Paris Air Show, Glastonbury
    """,
}
DEV_NAMES = {
    "FIRST": """
        George, Helen, Andrew, Monica, Karl, Teresa, Henry, Olivia, Louis, Eva, Bruno, Agnes, Philip, Sarah, Stefan,
        Rosa, Walter, Grace, Edgar, Vera
    """,
    "LAST": """
        Johansson, Garcia, Wagner, Bennett, Marino, Nowak, Hughes, Andersen, Lefevre, Fonseca, Zimmermann, Cooper,
        Ivanov, Fernandez, Olsen, Gallagher, Conti, Hoffmann, Reyes, Turner
    """,
    "LOC": """
        Rome, Tokyo, Sweden, Houston, Budapest, Peru, Munich, Warsaw, Vietnam, Montreal, Stockholm, Lagos, Zurich,
        Portugal, Dallas, Seoul, Costa Rica, Buenos Aires, New Zealand, Saint Petersburg
    """,
    "ORG": """
        Samsung, Honda, Philips, Amnesty International, Novartis, Airbus, Renault, Vodafone, Nokia, Bloomberg, Morgan
        Stanley, Credit Suisse, Cornell University, the University of Bristol, Ernst & Young, the European Commission,
        Northfield Partners Inc
    """,
    "EVENT": """
        the Champions League, the Boston Marathon, the Cannes Film Festival, the Venice Biennale, Eurovision, the
        Winter Olympics, the Monaco Grand Prix
    """,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder for train.conll and dev.conll")
    parser.add_argument("--train-sentences", type=int, default=1200)
    parser.add_argument("--dev-sentences", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train, dev = make(options.train_sentences, options.dev_sentences, options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)
    write(options.folder / "train.conll", train)
    write(options.folder / "dev.conll", dev)


def make(train_sentences: int, dev_sentences: int, seed: int) -> tuple[list[Sentence], list[Sentence]]:
    """Make the sentences of both files; raises AssertionError if anything of the dev file is in the training file."""
    rng = random.Random(seed)
    train = [sentence(rng, TRAIN_TEMPLATES, TRAIN_NAMES) for _ in range(train_sentences)]
    dev = [sentence(rng, DEV_TEMPLATES, DEV_NAMES) for _ in range(dev_sentences)]
    assert not set(TRAIN_TEMPLATES) & set(DEV_TEMPLATES)
    assert not {frame(words) for words in train} & {frame(words) for words in dev}
    assert not {name for words in train for name in names(words)} & {name for words in dev for name in names(words)}
    return train, dev


def sentence(rng: random.Random, templates: list[str], lists: dict[str, str]) -> Sentence:
    """Fill a random template with random words and names."""
    template = re.sub(r"\[(.*?)\]", lambda match: rng.choice(match[1].split("|")), rng.choice(templates))
    found: Sentence = []
    for part in template.split():
        kind = part.strip("{}")
        if kind == part:
            found.append((part, "O"))
            continue
        words = name(rng, kind, lists).split()
        outside = words[0] == "the"
        found += [("the", "O")] if outside else []
        found += [(word, f"{'I' if place else 'B'}-{kind}") for place, word in enumerate(words[outside:])]
    return found


def name(rng: random.Random, kind: str, lists: dict[str, str]) -> str:
    def choose(names: str) -> str:
        return rng.choice([" ".join(each.split()) for each in names.split(",")])

    if kind != "PER":
        return choose(lists[kind])
    first, last = choose(lists["FIRST"]), choose(lists["LAST"])
    return rng.choice((f"{first} {last}", f"{first} {last}", first, last, f"{first[0]}. {last}"))


def frame(words: Sentence) -> str:
    """The words of a sentence, with each name replaced with its type."""
    return " ".join(tag if tag[0] == "B" else word for word, tag in words if tag[0] != "I")


def names(words: Sentence) -> list[str]:
    """The names in a sentence."""
    found: list[str] = []
    for word, tag in words:
        if tag[0] == "B":
            found.append(word)
        elif tag[0] == "I":
            found[-1] += f" {word}"
    return found


def majority_tags(train: list[Sentence], dev: list[Sentence]) -> list[list[str]]:
    """Predict the most frequent tag for each word."""
    (most,) = Counter(tag for words in train for _, tag in words).most_common(1)
    return [[most[0]] * len(words) for words in dev]


def lexical_tags(train: list[Sentence], dev: list[Sentence]) -> list[list[str]]:
    """Predict the most frequent tag that a word has in the training file.

    A word that is not in the training file has the most frequent tag of words with the same capitalisation and after
    the same word or, if there are none, of words with the same capitalisation.
    """
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for words in train:
        for key, (_, tag) in zip(contexts(words), words):
            for part in (key[:1], key[1:], key[2:]):
                counts[part][tag] += 1
    found = []
    for words in dev:
        known = (next(part for part in (key[:1], key[1:], key[2:]) if part in counts) for key in contexts(words))
        found.append([counts[part].most_common(1)[0][0] for part in known])
    return found


def contexts(words: Sentence) -> list[tuple[str, str, str]]:
    """Each word, the word before it, and whether it begins with a capital letter."""
    before = ["", *(word for word, _ in words)]
    return [(f"word {word}", f"after {previous}", str(word[0].isupper())) for previous, (word, _) in zip(before, words)]


def write(path: Path, sentences: list[Sentence]) -> None:
    text = "\n".join("".join(f"{word}\t{tag}\n" for word, tag in words) for words in sentences)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
