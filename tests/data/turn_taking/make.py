"""Make the conversations beside this file: synthesized voices that take turns as people do, with the STM of them.

Needs espeak-ng, flite, festival (with its voice cmu_us_slt_arctic_hts) and sox, which the tests do not. The committed
files are what the tests use; run this only to make others: `python tests/data/turn_taking/make.py`.

`tune_*` were there to choose the settings of serve_app/pipeline/speakers.py; `held_*` (other voices, other talk) were
seen when the diarizer's activity threshold was chosen. `alike_*` are two of them with voices that no diarizer here
tells apart. A line of a script begins some seconds after the line before it has ended; less than 0 is an overlap. With
`WITHIN` it is a back-channel: it begins at that share of the line before it, and the next line does not wait for it.
A line that ends without a full stop goes on after what the other one throws in.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import soundfile

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.data.dialogues.make import NOISE_DBFS, RATE_HZ, VOICES, at_level, speak, trimmed  # noqa: E402

WITHIN = "within"
BACK_CHANNEL_DB = -4
"""Level of what is said into another's line, relative to the speaker's other lines."""

CASTS = {
    "tune_move": {"A": "slt", "B": "rms"},
    "tune_trip": {"A": "awb", "B": "slt"},
    "tune_team": {"A": "rms", "B": "slt", "C": "kal"},
    "tune_garden": {"A": "awb", "B": "gran"},
    "held_shop": {"A": "hts", "B": "rms_deep"},
    "held_doctor": {"A": "rms_deep", "B": "hts_young"},
    "held_news": {"A": "hts", "B": "rms_deep", "C": "awb_light"},
    "held_film": {"A": "kal_light", "B": "hts"},
    "held_call": {"A": "rms_deep", "B": "mike"},
    "alike_garden": {"A": "rms", "B": "awb"},
    "alike_doctor": {"A": "awb_light", "B": "hts_young"},
}
Line = tuple[str, float, str] | tuple[str, float, str, str]
"""Who, seconds after the line before (or its share, with WITHIN), text."""
SCRIPTS: dict[str, list[Line]] = {
    "tune_move": [
        ("A", 0.0, "So, have you heard when the new office is going to be ready?"),
        ("B", 0.1, "Not really. They told me it would be in the middle of March."),
        ("A", 0.1, "March? I thought we had to leave this building in February."),
        ("B", -0.2, "Yes, that is the problem."),
        ("A", 0.15, "When I talked to the owner on Monday,"),
        ("B", 0.1, "Yeah."),
        ("A", 0.1, "he said that we could stay for two more weeks, but only if we pay for the whole month."),
        ("B", 0.4, "Right.", WITHIN),
        ("B", 0.1, "That is a lot of money for two weeks. Did he say why?"),
        ("A", 0.1, "No."),
        ("B", 0.1, "Okay. Then I will call him tomorrow and ask for a better price."),
        ("A", 0.3, "Good. And please tell me what he says before you sign anything."),
        ("B", 0.1, "Of course. I never sign anything without you."),
    ],
    "tune_trip": [
        ("A", 0.0, "Hello? Can you hear me?"),
        ("B", 0.2, "Hello. Yes, I can hear you very well."),
        ("A", 0.1, "Great. I wanted to ask you about the trip to Scotland next summer."),
        ("B", 0.6, "Uh huh.", WITHIN),
        ("A", 0.25, "We would take the night train, and then rent a car for the islands."),
        ("B", 0.1, "How much is the car?"),
        ("A", 0.1, "About forty pounds a day, and the ferry is extra."),
        ("B", -0.25, "Oh, that is not too bad."),
        ("A", 0.1, "And my sister would like to come with us,"),
        ("B", 0.1, "Really?"),
        ("A", 0.1, "because she has never seen the mountains in the north."),
        ("B", 0.1, "Neither have I. I would be happy to have her with us."),
        ("A", 0.1, "Wonderful. I will tell her tonight, and then I will buy the tickets."),
        ("B", 0.5, "Yeah.", WITHIN),
        ("B", 0.2, "Thank you. Good night."),
    ],
    "tune_team": [
        ("A", 0.0, "Let us begin. Who has the numbers from last week?"),
        ("B", 0.1, "I do. We sold four hundred boxes, which is less than we hoped for."),
        ("C", 0.1, "Why is that?"),
        ("B", 0.1, "The weather was bad, and two of the drivers were ill."),
        ("A", 0.5, "Mhm.", WITHIN),
        ("A", 0.1, "And what about the shop in the harbour?"),
        ("C", 0.1, "That one was fine. In fact, it was the best week since it opened,"),
        ("B", 0.1, "Oh, good."),
        ("C", 0.1, "and the people keep asking for more of the dark bread."),
        ("A", -0.2, "Then we should bake more of it. Can you do that?"),
        ("C", 0.1, "Yes, but I need another oven."),
        ("A", 0.3, "How much would another oven cost?"),
        ("C", 0.1, "Nine thousand."),
        ("B", 0.1, "That is too much for this year."),
        ("A", 0.1, "I agree. Let us talk about it again in the autumn."),
    ],
    "tune_garden": [
        ("A", 0.0, "What have you planted behind the house this year? It looks very green."),
        ("B", 0.1, "Beans, mostly."),
        ("A", 0.1, "Beans? All of it?"),
        ("B", 0.1, "No, no. There are tomatoes near the wall, and a few onions"),
        ("A", 0.1, "Mhm."),
        ("B", 0.1, "that my neighbour gave me when she moved away."),
        ("A", 0.1, "You know, I have tried to grow tomatoes three times and they always died."),
        ("B", -0.3, "Really? You must give them more water than that."),
        ("A", 0.2, "I gave them water every single evening, and I even talked to them."),
        ("B", 0.6, "Yeah.", WITHIN),
        ("B", 0.1, "Then it was the soil. I can bring you a bag of mine."),
        ("A", 0.1, "That would be nice of you. Thanks."),
    ],
    "held_shop": [
        ("A", 0.0, "Good morning. I bought this radio here on Friday and it does not work."),
        ("B", 0.1, "I am sorry to hear that. What is wrong with it?"),
        ("A", 0.1, "There is no sound at all. I changed the batteries,"),
        ("B", 0.1, "Right."),
        ("A", 0.1, "and I tried it in the kitchen and in the bedroom, but nothing happened."),
        ("B", 0.5, "Mhm.", WITHIN),
        ("B", 0.1, "Do you have the receipt?"),
        ("A", 0.1, "Yes."),
        ("B", 0.1, "Good. Then I can give you a new one, or I can give you your money back."),
        ("A", -0.2, "I would like a new one, please."),
        ("B", 0.1, "The black one is sold out. Is a white one okay?"),
        ("A", 0.1, "Sure. White is fine with me."),
        ("B", 0.3, "Here you are. Is there anything else that I can do for you?"),
        ("A", 0.1, "No, that is all. Thank you very much."),
    ],
    "held_doctor": [
        ("A", 0.0, "Come in and take a seat. How long have you had this cough?"),
        ("B", 0.1, "For about three weeks now. It started after my holiday."),
        ("A", 0.1, "I see. And do you have a fever?"),
        ("B", 0.1, "No, but I feel tired all day,"),
        ("A", 0.1, "Okay."),
        ("B", 0.1, "and I wake up four or five times every night."),
        ("A", 0.1, "Do you smoke?"),
        ("B", 0.1, "Not any more."),
        ("A", 0.1, "That is good. I am going to listen to your chest, so please breathe slowly."),
        ("B", 0.6, "Yeah.", WITHIN),
        ("A", 0.5, "It sounds clear. I think that you only need some rest and plenty of tea."),
        ("B", -0.25, "So it is nothing serious?"),
        ("A", 0.1, "No. But come back if it is not better by next Tuesday."),
        ("B", 0.1, "I will. Thank you, doctor."),
    ],
    "held_news": [
        ("A", 0.0, "Welcome back. With me are two people who know the city better than anyone."),
        ("B", 0.2, "Thank you for having us."),
        ("C", 0.1, "Hello, everybody."),
        ("A", 0.1, "Let me start with the new bridge. Is it really safe?"),
        ("B", 0.1, "Absolutely. We tested it for six months, with every kind of truck,"),
        ("A", 0.1, "Mhm."),
        ("B", 0.1, "and we did not find a single crack in the concrete."),
        ("C", -0.2, "I am not so sure about that."),
        ("A", 0.1, "Why not?"),
        ("C", 0.1, "Because the report that I have read says something very different about the north side."),
        ("B", 0.5, "No.", WITHIN),
        ("B", 0.1, "That report is two years old."),
        ("C", 0.1, "It is still true. Nobody has repaired anything since then."),
        ("A", 0.1, "Gentlemen, please. We have to stop here, but we will come back to this next week."),
        ("B", 0.1, "Fine."),
    ],
    "held_film": [
        ("A", 0.0, "Did you watch the film that I told you about?"),
        ("B", 0.1, "Yes, I did. I watched it last night with my brother."),
        ("A", 0.1, "And? Did you like it?"),
        ("B", 0.1, "The beginning was a little slow, to be honest."),
        ("A", 0.5, "Right.", WITHIN),
        ("B", 0.2, "But when the old man finds the letter in the piano,"),
        ("A", 0.1, "Oh, yes."),
        ("B", 0.1, "I could not stop crying until the end."),
        ("A", 0.1, "Me too. The music is beautiful as well."),
        ("B", -0.2, "Who wrote it?"),
        ("A", 0.1, "I do not know. Some young woman from Finland, I think."),
        ("B", 0.1, "I have to look for it. My brother would love to play it."),
        ("A", 0.1, "Good idea. Shall we see the next one together?"),
        ("B", 0.1, "Gladly."),
    ],
    "held_call": [
        ("A", 0.0, "Hello, this is the water company. How can I help you?"),
        ("B", 0.2, "Hello. There is water in my cellar, and it smells very bad."),
        ("A", 0.1, "Oh. Since when?"),
        ("B", 0.1, "Since this morning. When I went down to get some apples,"),
        ("A", 0.1, "Yeah."),
        ("B", 0.1, "the whole floor was wet."),
        ("A", 0.1, "Please do not touch any of the cables. Can you give me your address?"),
        ("B", 0.1, "Twelve Garden Street."),
        ("A", 0.1, "Twelve?"),
        ("B", 0.1, "Yes, the red house next to the school."),
        ("A", -0.2, "Okay. Somebody will be there in twenty minutes."),
        ("B", 0.1, "Thank you so much. I will wait outside."),
    ],
}


def main() -> None:
    """Make them all, or those that are named."""
    for name in sys.argv[1:] or CASTS:
        make(name)


def make(name: str) -> None:
    """Write `name`.ogg and `name`.stm."""
    draw = random.Random(name)  # noqa: S311
    cast = CASTS[name]
    level_db = {who: draw.uniform(-25, -20) for who in cast}
    audio = np.zeros(0)
    rows = []
    start_s = end_s = 0.5
    for who, when, text, *within in script(name):
        quieter_db = BACK_CHANNEL_DB if within else 0
        speech = at_level(trimmed(speak(VOICES[cast[who]], text)), level_db[who] + quieter_db)
        at_s = start_s + when * (end_s - start_s) if within else end_s + when
        audio = mixed(audio, speech, at_s)
        rows.append((at_s, at_s + len(speech) / RATE_HZ, who, text))
        if not within:
            start_s, end_s = rows[-1][:2]
    audio = np.concatenate([audio, np.zeros(RATE_HZ // 2)])
    audio += np.random.default_rng(len(audio)).normal(size=len(audio)) * 10 ** (NOISE_DBFS / 20)
    ogg = {"format": "OGG", "subtype": "OPUS", "compression_level": 0.96}
    soundfile.write(HERE / f"{name}.ogg", audio.astype(np.float32), RATE_HZ, **ogg)
    stm = (f"{name} 1 {cast[who]} {start:.3f} {end:.3f} {text}\n" for start, end, who, text in sorted(rows))
    (HERE / f"{name}.stm").write_text("".join(stm))


def script(name: str) -> list[Line]:
    """The lines of `name`; those of alike voices are another one's."""
    subject = name.split("_")[1]
    return next(lines for other, lines in SCRIPTS.items() if other.endswith(subject))


def mixed(audio: np.ndarray, speech: np.ndarray, at_s: float) -> np.ndarray:
    """`audio` with `speech` added from `at_s` on, longer where that is needed."""
    first = round(at_s * RATE_HZ)
    longer = np.pad(audio, (0, max(0, first + len(speech) - len(audio))))
    longer[first : first + len(speech)] += speech
    return longer


if __name__ == "__main__":
    main()
