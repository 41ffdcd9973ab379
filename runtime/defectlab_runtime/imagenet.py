"""Mean and standard deviation of ImageNet's images, by which most published weights expect their input."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of red, green, blue in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)
