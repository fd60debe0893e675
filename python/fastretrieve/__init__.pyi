# What type checkers and editors see of the package; tests/test_typing.py compares it with what
# __init__.py imports lazily.

from fastretrieve.clustering import Clusters as Clusters
from fastretrieve.clustering import kmeans as kmeans
from fastretrieve.data import DataError as DataError
from fastretrieve.data import Dataset as Dataset
from fastretrieve.data import open_dataset as open_dataset
from fastretrieve.encoders import EncoderError as EncoderError
from fastretrieve.encoders import create_encoder as create_encoder
from fastretrieve.encoders import list_encoders as list_encoders
from fastretrieve.encoders import load_encoder as load_encoder
from fastretrieve.evaluation import Classification as Classification
from fastretrieve.evaluation import Evaluation as Evaluation
from fastretrieve.evaluation import classify as classify
from fastretrieve.evaluation import evaluate as evaluate
from fastretrieve.formats import read_vectors as read_vectors
from fastretrieve.formats import write_vectors as write_vectors
from fastretrieve.fusion import fuse as fuse
from fastretrieve.fusion import normalize as normalize
from fastretrieve.gallery import Gallery as Gallery
from fastretrieve.gallery import GalleryError as GalleryError
from fastretrieve.gallery import Matches as Matches
from fastretrieve.index import Index as Index
from fastretrieve.ops import scores as scores
from fastretrieve.ops import topk as topk
from fastretrieve.results import Graph as Graph
from fastretrieve.results import Hits as Hits
from fastretrieve.results import InRange as InRange
from fastretrieve.results import Pairs as Pairs
from fastretrieve.runtime import BackendInfo as BackendInfo
from fastretrieve.runtime import BackendUnavailable as BackendUnavailable
from fastretrieve.runtime import backends as backends
from fastretrieve.runtime import num_threads as num_threads
from fastretrieve.runtime import set_num_threads as set_num_threads
from fastretrieve.tensorfile import StorageError as StorageError
from fastretrieve.training import TrainingResult as TrainingResult
from fastretrieve.training import train as train

__version__: str
__all__: list[str]
