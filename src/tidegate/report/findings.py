"""What the numbers say, in sentences: each is chosen by the values of the record and carries them."""

from tidegate.report.looks import LOOKS
from tidegate.report.numbers import count, listed, percent, scientific, share_points, two_standard_errors
from tidegate.report.records import DemoRecord, FilmRecord, Span, SystemRecord

__all__ = ["GRADIENT_STEP", "best", "even_shares", "findings", "shown_first", "span_of", "truth", "worst"]

#: The t of `SystemRecord.gradient`: the record holds ‖∂a(T)/∂a(5)‖.
GRADIENT_STEP = 5

#: Mean gates closer than this are called about equal.
GATE_MARGIN = 0.02
#: Gradients within this factor of each other are called about equal.
GRADIENT_FACTOR = 2.0


def best(record: DemoRecord) -> SystemRecord:
    """The system that was right most often; the first of equals."""
    return max(record.systems, key=lambda system: system.accuracy)


def worst(record: DemoRecord) -> SystemRecord:
    """The system that was right least often; the first of equals."""
    return min(record.systems, key=lambda system: system.accuracy)


def shown_first(record: DemoRecord) -> SystemRecord:
    """The gated system with the best accuracy; the best of all if none has a gate."""
    gated = [system for system in record.systems if LOOKS[system.system].gated]
    return max(gated or record.systems, key=lambda system: system.accuracy)


def span_of(film: FilmRecord, kind: str) -> Span:
    """The film's one span of the kind "opening" or "advert"."""
    return next(span for span in film.spans if span.kind == kind)


def truth(record: DemoRecord) -> str:
    """The right answer: the shot that opened the film."""
    return span_of(record.film, "opening").shot


def even_shares(film: FilmRecord) -> dict[str, float]:
    """The share of the film's frames that each kind of span has: what a memory that weighed all alike would hold."""
    steps = len(film.frames)
    shares = dict.fromkeys(("opening", "advert", "rest"), 0.0)
    for span in film.spans:
        shares[span.kind] += (span.stop - span.start) / steps
    return shares


def findings(record: DemoRecord) -> list[str]:
    """The sentences under the headline: accuracy, gates, memory, gradient and initialisation, where there is one."""
    sentences = [_accuracy(record), _without_memory(record), _gates(record), _memory(record)]
    return [sentence for sentence in (*sentences, _gradient(record), _initialisation(record)) if sentence]


def _above(baseline: float, system: SystemRecord, record: DemoRecord) -> bool:
    """Whether the system did better than `baseline` by more than two standard errors."""
    return system.accuracy > baseline + two_standard_errors(baseline, record.test_sequences)


def _accuracy(record: DemoRecord) -> str:
    top, bottom = best(record), worst(record)
    films = f"{count(record.test_sequences)} test films"
    guessing = f"guessing gives {percent(record.chance)}"
    if not _above(record.chance, top, record):
        return (
            f"No network did clearly better than guessing: the best, the {top.title}, named the opening shot in "
            f"{percent(top.accuracy)} of {films}, where {guessing}."
        )
    if top.accuracy == bottom.accuracy:
        return f"All networks did equally well: {percent(top.accuracy)} of {films} answered right, where {guessing}."
    return (
        f"The {top.title} did best: it named the opening shot in {percent(top.accuracy)} of {films}, where {guessing}. "
        f"The {bottom.title} did worst, with {percent(bottom.accuracy)}."
    )


def _without_memory(record: DemoRecord) -> str:
    """Who shows no memory of the opening: those who do no better than by ruling out the shots that came later."""
    if not _above(record.chance, best(record), record):
        return ""
    ruled_out = f"{percent(record.elimination)} can be had without it, by ruling out the shots that came later"
    without = [
        f"the {system.title} ({percent(system.accuracy)})"
        for system in record.systems
        if not _above(record.elimination, system, record)
    ]
    if not without:
        return f"Every network remembers the opening: {ruled_out}, and all did clearly better."
    margin = share_points(two_standard_errors(record.elimination, record.test_sequences))
    guessed = [f"the {system.title}" for system in record.systems if not _above(record.chance, system, record)]
    chance = f" Not clearly better than guessing either: {listed(guessed)}." if guessed else ""
    return (
        f"Without a memory of the opening, as far as their answers show: {listed(without)}; {ruled_out}, and two "
        f"standard errors more, {margin}, may be luck.{chance}"
    )


def _gates(record: DemoRecord) -> str:
    system = shown_first(record)
    if not LOOKS[system.system].gated:
        return ""
    advert, opening = system.update_on_advert, system.update_on_opening
    if abs(advert - opening) < GATE_MARGIN:
        verdict = "was about as far open during the advert as"
    elif advert < opening:
        verdict = "was less open during the advert than"
    else:
        verdict = "was wider open during the advert than"
    return (
        f"The update gate of the {system.title} {verdict} during the opening: {advert:.2f} on "
        f"average, against {opening:.2f}. Before training it was {system.untrained_update_on_advert:.2f} and "
        f"{system.untrained_update_on_opening:.2f}."
    )


def _memory(record: DemoRecord) -> str:
    system, even = shown_first(record), even_shares(record.film)
    opening, advert = system.memory_opening / even["opening"], system.memory_advert / even["advert"]
    return (
        f"Of the final memory of the {system.title}, {percent(system.memory_opening)} is from the opening, "
        f"{percent(system.memory_advert)} from the advert and {percent(system.memory_rest)} from the rest. "
        f"Frame for frame, that is {opening:.2f} times an even share for the opening and {advert:.2f} times for "
        "the advert."
    )


def _gradient(record: DemoRecord) -> str:
    systems = {system.system: system for system in record.systems}
    if "gru" not in systems or "rnn" not in systems:
        return ""
    gru, rnn = systems["gru"], systems["rnn"]
    numbers = f"‖∂a(T)/∂a({GRADIENT_STEP})‖ is {scientific(gru.gradient)} and {scientific(rnn.gradient)}"
    change = f"a change of the state after {GRADIENT_STEP} frames"
    if gru.gradient == 0 or rnn.gradient == 0:
        reaching = [system.title for system in (gru, rnn) if system.gradient > 0]
        verdict = f"{change} reaches the last one {f'only in the {reaching[0]}' if reaching else 'in neither'}"
    elif max(gru.gradient, rnn.gradient) < GRADIENT_FACTOR * min(gru.gradient, rnn.gradient):
        verdict = f"{change} reaches the last one about equally in both"
    else:
        more, less = (gru, rnn) if gru.gradient > rnn.gradient else (rnn, gru)
        ratio = more.gradient / less.gradient
        times = f"{ratio:.0f}" if ratio < 1000 else scientific(ratio)
        verdict = f"{change} reaches the last one {times} times as strongly in the {more.title} as in the {less.title}"
    return f"For the {gru.title} and the {rnn.title}, {numbers}: {verdict}."


def _initialisation(record: DemoRecord) -> str:
    systems = {system.system: system for system in record.systems}
    if "gru" not in systems or "gru-default-init" not in systems:
        return ""
    chrono, default = systems["gru"].accuracy, systems["gru-default-init"].accuracy
    margin = sum(two_standard_errors(share, record.test_sequences) ** 2 for share in (chrono, default)) ** 0.5
    start = f"Started with gates set for a memory of {record.chrono_steps} steps, the GRU reached {percent(chrono)}"
    both = f"{start}; started as PyTorch starts it, {percent(default)}"
    if abs(chrono - default) <= margin:
        return f"{both}: no clear difference."
    return f"{both}: {share_points(chrono - default)} {'less' if default < chrono else 'more'}."
