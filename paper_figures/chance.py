"""How much information a table of domains and experts holds by chance."""

import numpy as np
from jaxtyping import Float


def chance_information(
    table: Float[np.ndarray, "*batch labels experts"], tokens: int, least_routes: int
) -> Float[np.ndarray, "*batch"]:
    r"""Expected `normalised_information` if labels were dealt to the tokens anew, to second order.

    Each count is then hypergeometric, of variance $n_l (T-n_l) n_e (T-n_e) / (T^2 (T-1))$ whatever else its tokens
    select, and $E\,I \approx \sum_{le} Var\,C_{le} / (2 R^2 p_l p_e) = (Y-1)(NT-R) / (2R(T-1))$ nats for R routes of T
    tokens, N experts and Y labels that occur: the bias of Miller and Madow where a token selects one expert. Tokens of
    a text are alike near each other, so that a text exceeds this by chance alone.

    **Arguments:** `table`: counts from `contingency`. `tokens`: T. `least_routes`: as of `normalised_information`.
    """
    routes, labels = table.sum(axis=(-2, -1)), table.sum(axis=-1)
    share = labels / routes[..., None]
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=-1)
    bound = np.minimum(entropy, np.log(table.shape[-1] / least_routes))
    kinds = (labels > 0).sum(axis=-1)
    return np.asarray((kinds - 1) * (table.shape[-1] * tokens - routes) / (2 * routes * (tokens - 1)) / bound)
