import pytest
import torch

from ecgdist.models.decoder import Decoder, LeadwiseDecoder, build_decoder
from ecgdist.models.heads import Predictor, Projector
from tests.models.batches import PATCH, TINY, TOKENS, VIT_CASES

KEPT = torch.tensor([[0, 4, 9], [1, 2, 11]])


def decoder_and_tokens() -> tuple[Decoder, torch.Tensor]:
    torch.manual_seed(0)
    return Decoder(TINY), torch.randn(2, 3, 128)


def test_every_patch_of_the_window_is_predicted() -> None:
    decoder, tokens = decoder_and_tokens()
    predicted = decoder(
        tokens, KEPT, torch.ones(2, 3, dtype=torch.bool), torch.ones(2, TOKENS, dtype=torch.bool)
    )
    assert predicted.shape == (2, TOKENS, 12 * PATCH)


def test_the_order_of_the_slots_does_not_matter() -> None:
    decoder, tokens = decoder_and_tokens()
    used, valid = torch.ones(2, 3, dtype=torch.bool), torch.ones(2, TOKENS, dtype=torch.bool)
    order = [2, 0, 1]
    assert torch.equal(
        decoder(tokens, KEPT, used, valid), decoder(tokens[:, order], KEPT[:, order], used, valid)
    )


def test_what_stands_in_an_unused_slot_changes_nothing() -> None:
    decoder, tokens = decoder_and_tokens()
    used = torch.tensor([[True, True, True], [True, True, False]])
    valid = torch.ones(2, TOKENS, dtype=torch.bool)
    valid[1, 8:] = False
    changed = tokens.clone()
    changed[1, 2] = 7
    assert torch.equal(decoder(tokens, KEPT, used, valid), decoder(changed, KEPT, used, valid))


def test_hidden_patches_of_one_record_are_told_apart_by_their_place_only() -> None:
    decoder, tokens = decoder_and_tokens()
    used, valid = torch.ones(2, 3, dtype=torch.bool), torch.ones(2, TOKENS, dtype=torch.bool)
    predicted = decoder(tokens, KEPT, used, valid)
    assert not torch.allclose(predicted[0, 5], predicted[0, 6], atol=1e-4)


def test_heads_keep_the_batch_apart() -> None:
    torch.manual_seed(0)
    projector, predictor = Projector(TINY), Predictor(TINY)
    embedding = torch.randn(5, 128)
    queries = predictor(projector(embedding))
    assert queries.shape == (5, 64)
    torch.testing.assert_close(predictor(projector(embedding[3:4])), queries[3:4], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("case", "kind", "values"),
    [
        ("vit, time", Decoder, 12 * PATCH),
        ("vit, lead", Decoder, 300),
        ("vit, lead_time", LeadwiseDecoder, PATCH),
    ],
)
def test_a_layout_has_the_decoder_of_its_method(case: str, kind: type[Decoder], values: int) -> None:
    decoder = build_decoder(VIT_CASES[case])
    assert type(decoder) is kind
    assert decoder.predict.out_features == values


def leadwise() -> tuple[LeadwiseDecoder, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A decoder, and tokens 1, 4 and 9 of leads 0, 3 and 7, with a batch of one."""
    torch.manual_seed(0)
    decoder = LeadwiseDecoder(VIT_CASES["vit, lead_time"])
    kept = torch.tensor([[lead * TOKENS + place for lead in (0, 3, 7) for place in (1, 4, 9)]])
    valid = torch.ones(1, 12, TOKENS, dtype=torch.bool)
    valid[:, 5] = False
    return decoder, torch.randn(1, 9, 128), kept, valid.flatten(1)


def test_a_lead_is_decoded_without_the_tokens_of_others() -> None:
    decoder, tokens, kept, valid = leadwise()
    used = torch.ones(1, 9, dtype=torch.bool)
    changed = tokens.clone()
    changed[:, 3:6] = 7  # those of lead 3
    before, after = (decoder(x, kept, used, valid).reshape(12, TOKENS, PATCH) for x in (tokens, changed))
    others = [lead for lead in range(12) if lead != 3]
    assert torch.equal(before[others], after[others])
    assert not torch.allclose(before[3], after[3], atol=1e-3)


def test_all_leads_are_decoded_by_the_same_weights() -> None:
    decoder, tokens, kept, valid = leadwise()
    tokens[:, 3:6] = tokens[:, 0:3]
    used = torch.ones(1, 9, dtype=torch.bool)
    predicted = decoder(tokens, kept, used, valid).reshape(12, TOKENS, PATCH)
    torch.testing.assert_close(predicted[3], predicted[0])
    assert not torch.allclose(predicted[7], predicted[0], atol=1e-3)


def test_the_gradient_of_a_leadwise_decoder_is_the_derivative() -> None:
    decoder, tokens, kept, valid = leadwise()
    decoder.double()
    used = torch.ones(1, 9, dtype=torch.bool)
    given = tokens.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: decoder(x, kept, used, valid).square(), (given,), fast_mode=True
    )
