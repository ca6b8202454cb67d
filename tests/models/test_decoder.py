import torch

from ecgdist.models.decoder import Decoder
from ecgdist.models.heads import Predictor, Projector
from tests.models.batches import PATCH, TINY, TOKENS

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
