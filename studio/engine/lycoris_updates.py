"""What LyCORIS' files change of a layer, as an update of its weight and as the pair of matrices that makes it."""

from collections.abc import Mapping

import torch

from studio.loras.keys import Role


def change_of(stored: Mapping[Role, torch.Tensor], alpha: float | None) -> torch.Tensor | None:
    """(out, in, …): the update of the weight, by LyCORIS' own functions where it takes more than a sum."""
    for role in ("diff", "w_norm"):
        if role in stored:
            return stored[role]
    if "mid" in stored:
        from lycoris.functional import locon  # several seconds, which only such a file costs

        sides = (stored["down"], stored["up"], stored["mid"])
        return _plain(locon.diff_weight(*sides, gamma=_scale(alpha, stored["down"].shape[0]), backend="torch"))
    if "hada_w1_a" in stored:
        from lycoris.functional import loha

        names: tuple[Role, ...] = ("hada_w1_b", "hada_w1_a", "hada_w2_b", "hada_w2_a", "hada_t1", "hada_t2")
        scale = torch.tensor(_scale(alpha, stored["hada_w1_b"].shape[0]))
        return _plain(loha.diff_weight(*(stored.get(name) for name in names), gamma=scale, backend="torch"))
    if any(role.startswith("lokr") for role in stored):
        from lycoris.functional import lokr

        names = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
        ranks = [stored[name].shape[1] for name in ("lokr_w1_a", "lokr_w2_a") if name in stored]
        # gamma / rank is its scale; of two whole matrices it is 1, whatever alpha the file has
        gamma = alpha if alpha is not None and ranks else float(ranks[0]) if ranks else 1.0
        return _plain(lokr.diff_weight(*(stored.get(name) for name in names), gamma=gamma, backend="torch"))
    return None


def _plain(change: torch.Tensor) -> torch.Tensor:
    return change.detach()


def _scale(alpha: float | None, rank: int) -> float:
    return 1.0 if alpha is None else alpha / rank


def pair_of(change: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(down, up) of the least rank that surely holds any update of this shape."""
    if change.ndim == 1:
        return torch.ones(1, 1), change[:, None]
    num_outputs, num_inputs = change.shape[0], change[0].numel()
    ones = (1,) * (change.ndim - 2)
    if num_outputs <= num_inputs:
        return change, torch.eye(num_outputs).reshape(num_outputs, num_outputs, *ones)
    return torch.eye(num_inputs).reshape(num_inputs, *change.shape[1:]), change.reshape(num_outputs, num_inputs, *ones)


def nothing_of(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(0, *weight.shape[1:]), torch.zeros(weight.shape[0], 0, *(1 for __ in weight.shape[2:]))
