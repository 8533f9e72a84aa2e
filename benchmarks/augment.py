"""Images a second under the standard set of augmentations, beside fastai, torchvision and kornia.

64 images of 3 x 160 x 160 bytes, on the CPU, become augmented images in float: flip, rotate, zoom,
warp, brightness and contrast, bilinear, with the ranges and probabilities of fastai's defaults. The
arms take turns. `python benchmarks/augment.py --picture out.png --image photo.jpg` also draws the
same image under each.
"""

import argparse
import importlib.metadata
import statistics
from time import perf_counter, process_time

import torch
from torch.nn import functional

from trainbus_augment import Augmenter, standard

COUNT, SIZE = 64, 160


def ours():
    """The plugin's augmenter, as it is called in each step."""
    augmenter, generator = Augmenter(standard()), torch.Generator().manual_seed(0)
    return lambda images: augmenter((images,), ("image",), generator)[0]


def fastai():
    """Whole batches, with the transforms composed as its data loaders do."""
    from fastai.torch_core import TensorImage
    from fastai.vision.augment import aug_transforms, setup_aug_tfms

    transforms = setup_aug_tfms(aug_transforms())

    def augment(images):
        batch = TensorImage(images).float().div_(255)
        for transform in transforms:
            batch = transform(batch, split_idx=0)
        return batch.as_subclass(torch.Tensor)

    return augment


def torchvision():
    """Image by image, as in a dataset, in bytes until the end, which is its fastest way."""
    from torchvision.transforms import InterpolationMode, v2

    linear = InterpolationMode.BILINEAR
    transform = v2.Compose([
        v2.RandomHorizontalFlip(0.5),
        v2.RandomApply([v2.RandomAffine(10, scale=(1, 1.1), interpolation=linear)], 0.75),
        v2.RandomPerspective(0.2, p=0.75, interpolation=linear),
        v2.RandomApply([v2.ColorJitter(0.2, 0.2)], 0.75),
        v2.ToDtype(torch.float32, scale=True),
    ])  # fmt: skip
    return lambda images: torch.stack([transform(image) for image in images])


def kornia():
    """Whole batches, with parameters for each image."""
    from kornia import augmentation as k

    transform = k.ImageSequential(
        k.RandomHorizontalFlip(p=0.5),
        k.RandomAffine(degrees=10.0, scale=(1.0, 1.1), p=0.75, padding_mode="reflection"),
        k.RandomPerspective(0.2, p=0.75),
        k.RandomBrightness((0.8, 1.2), p=0.75),
        k.RandomContrast((0.8, 1.2), p=0.75),
    )
    return lambda images: transform(images.float().div_(255))


def interpolation():
    """One grid_sample of the whole batch and nothing else, from a grid that is there already."""
    theta = torch.eye(2, 3).repeat(COUNT, 1, 1) + torch.randn(COUNT, 2, 3) / 20
    grid = functional.affine_grid(theta, (COUNT, 3, SIZE, SIZE), align_corners=False)
    ready = torch.rand(COUNT, 3, SIZE, SIZE)
    return lambda _images: functional.grid_sample(
        ready, grid, padding_mode="reflection", align_corners=False
    )


ARMS = {
    "trainbus-augment": ours,
    "fastai": fastai,
    "torchvision": torchvision,
    "kornia": kornia,
    "one grid_sample alone": interpolation,
}
PEERS = ["fastai", "torchvision", "kornia"]


def made():
    """The arms that are installed, by name and version."""
    arms = {}
    for name, make in ARMS.items():
        try:
            arms[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return arms


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--image", help="a photo to augment; by default noise")
    parser.add_argument("--picture", help="where to draw the same image under each")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    arms = made()
    images = read(options.image)
    if options.picture:
        draw(options.picture, images, arms)
    wall, processor = measured(arms, images, options.rounds)
    show(wall, processor, options)


def measured(arms, images, rounds):
    """Seconds by the clock and of the processor, of each arm in each round."""
    wall, processor = {name: [] for name in arms}, {name: [] for name in arms}
    for arm in arms.values():  # what is done once in a process
        arm(images)
    for number in range(rounds):
        # Each second round backwards, so that no arm is always behind the same one.
        for name in list(arms) if number % 2 else list(arms)[::-1]:
            begun, used = perf_counter(), process_time()
            arms[name](images)
            wall[name].append(perf_counter() - begun)
            processor[name].append(process_time() - used)
    return wall, processor


def show(wall, processor, options):
    """Images a second, and how many times those of the fastest peer."""
    print(
        f"torch {torch.__version__}, {options.threads} threads, {options.rounds} rounds of "
        f"{COUNT} images of 3 x {SIZE} x {SIZE}, bilinear"
    )
    print(f"{'images a second':26}{'median':>9}{'best':>9}{'ms of processor':>18}")
    for name, times in wall.items():
        used = statistics.median(processor[name]) * 1e3
        print(f"{named(name):26}{COUNT / statistics.median(times):9,.0f}", end="")
        print(f"{COUNT / min(times):9,.0f}{used:18.1f}")
    peers = [name for name in PEERS if name in wall]
    if not peers:
        print("no peer is installed: run it in .venv-bench")
        return
    fastest = min(peers, key=lambda name: statistics.median(wall[name]))
    print(f"\n{f'times {fastest}, the fastest peer':34}{'quartiles':>16}{'target':>9}")
    for what, times in (("by the clock", wall), ("of the processor", processor)):
        ratios = [b / a for a, b in zip(times["trainbus-augment"], times[fastest], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        missed = "!" if middle < 3 else ""
        print(f"{what:26}{middle:8.1f}{f'{low:.1f} .. {high:.1f}':>16}{'>=3' + missed:>9}")


def named(name):
    """With the version of what is installed."""
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return name


def read(path):
    """The same image many times, in bytes."""
    if path is None:
        image = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8)
    else:
        from torchvision.io import ImageReadMode, decode_image
        from torchvision.transforms import v2

        whole = decode_image(path, ImageReadMode.RGB)
        image = v2.Compose([v2.Resize(SIZE, antialias=True), v2.CenterCrop(SIZE)])(whole)
    return image.expand(COUNT, 3, SIZE, SIZE).contiguous()


def draw(path, images, arms):
    """A row of augmented images for each arm, under the original."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = {"original": images / 255}
    rows |= {name: arm(images) for name, arm in arms.items() if "alone" not in name}
    figure, axes = pyplot.subplots(len(rows), 8, figsize=(12, 1.7 * len(rows)), squeeze=False)
    for line, (name, augmented) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, augmented, strict=False):
            axis.imshow(image.permute(1, 2, 0).clamp(0, 1))
            axis.axis("off")
        line[0].set_title(named(name), loc="left", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
