"""The torch model of the variational autoencoders: images to a latent posterior and back."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import nn

from defectlab.models.model_parts import evaluating
from defectlab.utils.seeds import generator, seeded

Networks = Callable[[tuple[int, int], int], tuple[nn.Module, nn.Module]]


class Encoded(NamedTuple):
    """Images (B, 3, H, W) in [0, 1] with mean and log variance (B, latent_dim) of their latent posterior."""

    images: torch.Tensor
    mean: torch.Tensor
    log_variance: torch.Tensor


class VaeModel(nn.Module):
    """Features, embed, fit and score of a variational autoencoder.

    Args:
        networks: Make encoder and decoder for an image size and a latent size.
        image_size: (height, width) of the images.
        latent_dim: Length of the latent vector.
        n_samples: Latent samples that a score is the mean of; 0 takes the posterior's mean instead.
        seed: Initialises the networks and draws the samples, the same ones for every image.
    """

    noise: torch.Tensor

    def __init__(
        self, networks: Networks, image_size: tuple[int, int], latent_dim: int, *, n_samples: int = 0, seed: int = 42
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.latent_dim = latent_dim
        with seeded(seed, "vae networks"):
            self.encoder, self.decoder = networks(image_size, latent_dim)
        noise = torch.randn(n_samples, latent_dim, generator=generator(seed, "vae samples of a score"))
        self.register_buffer("noise", noise)

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the images (B, 3, H, W) themselves: there is no backbone."""
        return {"images": images}

    def embed(self, features: dict[str, torch.Tensor]) -> Encoded:
        """Return the images with their latent posteriors."""
        return Encoded(features["images"], *self.encoder(features["images"]))

    def fit(self, embedding: Encoded, random: torch.Generator) -> torch.Tensor:
        """Return the losses (B,) to step on, one latent sample an image, drawn from `random`."""
        noise = torch.randn(embedding.mean.shape, generator=random).to(embedding.mean)
        return self.squared_error(embedding, noise).sum(dim=(1, 2, 3)) + divergence(embedding)

    def score(self, embedding: Encoded, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,), summed squared error plus divergence, and maps (B, 1, H, W), the squared error.

        Rebuilt from the posterior's mean, or as the mean over `noise`: no score is drawn by chance.
        """
        del image_size  # the images' own
        draws = [None] if not len(self.noise) else list(self.noise)
        maps = torch.zeros_like(embedding.images[:, :1])
        for noise in draws:
            maps += self.squared_error(embedding, noise) / len(draws)
        return maps.sum(dim=(1, 2, 3)) + divergence(embedding), maps

    def squared_error(self, embedding: Encoded, noise: torch.Tensor | None) -> torch.Tensor:
        """Return the squared error (B, 1, H, W), summed over channels; noise (B, latent_dim) or (latent_dim,)."""
        latent = embedding.mean
        if noise is not None:
            latent = latent + noise * torch.exp(0.5 * embedding.log_variance)
        return (self.decoder(latent) - embedding.images).square().sum(dim=1, keepdim=True)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images (B, 3, H, W), in eval mode whatever the model's is."""
        with evaluating(self), torch.no_grad():
            scores, maps = self.score(self.embed(self.features(images)), (images.shape[-2], images.shape[-1]))
        return InferenceBatch(pred_score=scores, anomaly_map=maps)

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Return images (B, 3, H, W) as rebuilt from their posteriors' means, in [0, 1]."""
        with evaluating(self), torch.no_grad():
            return self.decoder(self.embed(self.features(images)).mean)

    def generate(self, count: int, seed: int = 42) -> torch.Tensor:
        """Return `count` images (count, 3, H, W) in [0, 1], decoded from standard normal noise of one seed."""
        latent = torch.randn(count, self.latent_dim, generator=generator(seed, "vae generation")).to(self.noise)
        with evaluating(self), torch.no_grad():
            return self.decoder(latent)


def divergence(embedding: Encoded) -> torch.Tensor:
    """Return the Kullback-Leibler divergence (B,) of each posterior from the standard normal distribution."""
    mean, log_variance = embedding.mean, embedding.log_variance
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
