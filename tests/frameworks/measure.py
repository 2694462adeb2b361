"""The largest difference between each real framework and Tidegate in float32: `python -m tests.frameworks.measure`."""

from collections import defaultdict

from tests.frameworks.peers import CASES, PEERS, drawn_layer, largest_difference, randomised


def measured() -> dict[tuple[str, str], dict[str, float]]:
    """For each framework and variant, by form: the larger difference of the two ways of conversion."""
    table: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for case in CASES:
        peer, layer = PEERS[case.framework], drawn_layer(case)
        there = largest_difference(case, peer.load(case, peer.make(case), peer.convert(layer)), layer)
        real = peer.load(case, peer.make(case), randomised(peer.convert(layer)))
        table[case.framework, case.variant][case.form] = max(
            there, largest_difference(case, real, peer.back(case, real))
        )
    return table


def main() -> None:
    """Print the table."""
    table = measured()
    forms = list(next(iter(table.values())))
    print("| framework | layer | " + " | ".join(forms) + " |")
    print("| --- | --- |" + " --: |" * len(forms))
    for (framework, variant), row in table.items():
        print(f"| {framework} | {variant} | " + " | ".join(f"{row[form]:.1e}" for form in forms) + " |")


if __name__ == "__main__":
    main()
