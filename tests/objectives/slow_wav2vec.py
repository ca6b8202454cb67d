"""Masked prediction record by record and token by token, for a whole batch with autograd alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.objectives.part import Window
from ecgdist.objectives.quantiser import diversity_loss
from ecgdist.objectives.wav2vec import Wav2Vec
from ecgdist.streaming.draws import hashed, quantiles
from tests.objectives.whole import View


def part_of(module: PretrainingModule) -> Wav2Vec:
    assert isinstance(module.generative, Wav2Vec)
    return module.generative


def in_one_piece(module: PretrainingModule, views: Sequence[View], step: int) -> dict[str, Tensor]:
    """The losses of whole views by loops over records, with the diversity of all tokens and autograd alone."""
    part, config, count = part_of(module), module.config.generative, module.num_tokens
    losses, scores_of_all, squares = [], [], []
    for view in views:
        seen = module.see(Window(*view[:3]), view.noise)
        widths = [config.codebooks * config.codes, config.distractors]
        numbers = hashed(view.seeds, count * sum(widths)).view(len(view.seeds), count, sum(widths))
        gumbel = quantiles("gumbel", numbers[:, :, : widths[0]]).view(
            len(view.seeds), count, config.codebooks, -1
        )
        shares = quantiles("uniform", numbers[:, :, widths[0] :])
        quantised, codes, scores = part.quantiser(seen.latents.tokens, gumbel, part.gumbel_temperature(step))
        targets, context = part.project_quantised(quantised), part.project_context(seen.tokens)
        for row in range(len(view.seeds)):
            samples = view.signal[row].view(12, count, -1)[view.lead_mask[row]]
            lively = samples.transpose(0, 1).flatten(1).var(dim=1) >= 1e-4
            hidden = [token for token in range(count) if seen.hidden[row, token] and lively[token]]
            squares += [
                seen.latents.features[row, t].square().mean() for t in range(count) if seen.valid[row, t]
            ]
            if len(hidden) < 2:
                continue
            scores_of_all += [scores[row, token] for token in hidden]
            for token in hidden:
                others = [other for other in hidden if other != token]
                drawn = [others[int(share * len(others))] for share in shares[row, token]]
                told = [o for o in drawn if not torch.equal(codes[row, o], codes[row, token])]
                answers = targets[row, [token, *told]]
                cosines = torch.cosine_similarity(context[row, token][None], answers) / config.temperature
                losses.append(cosines.logsumexp(dim=0) - cosines[0])
    usage = torch.stack(scores_of_all).softmax(dim=-1).mean(dim=0)
    return {
        "prediction": torch.stack(losses).mean(),
        "diversity": diversity_loss(usage),
        "feature_penalty": torch.stack(squares).mean(),
    }
