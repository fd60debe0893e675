# What type checkers and editors see of the package; tests/test_typing.py compares it with what
# __init__.py imports lazily.

from fastretrieve._backends.interface import BackendUnavailable as BackendUnavailable
from fastretrieve._backends.runtime import BackendInfo as BackendInfo
from fastretrieve._backends.runtime import backends as backends
from fastretrieve._backends.runtime import num_threads as num_threads
from fastretrieve._backends.runtime import set_num_threads as set_num_threads
from fastretrieve._common.errors import StorageError as StorageError
from fastretrieve._files.formats import read_vectors as read_vectors
from fastretrieve._files.formats import write_vectors as write_vectors
from fastretrieve._queries.results import Graph as Graph
from fastretrieve._queries.results import Hits as Hits
from fastretrieve._queries.results import InRange as InRange
from fastretrieve._queries.results import Pairs as Pairs
from fastretrieve._queries.searchable import Searchable as Searchable
from fastretrieve._queries.searchable import merge as merge
from fastretrieve._state.optimizing import Optimized as Optimized
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
from fastretrieve.gallery import Clustering as Clustering
from fastretrieve.gallery import Explanation as Explanation
from fastretrieve.gallery import Gallery as Gallery
from fastretrieve.gallery import GalleryError as GalleryError
from fastretrieve.gallery import Imagine as Imagine
from fastretrieve.gallery import Matches as Matches
from fastretrieve.gallery import Translate as Translate
from fastretrieve.index import Index as Index
from fastretrieve.ops.clustering import Clusters as Clusters
from fastretrieve.ops.clustering import kmeans as kmeans
from fastretrieve.ops.fusion import fuse as fuse
from fastretrieve.ops.fusion import normalize as normalize
from fastretrieve.ops.topk import scores as scores
from fastretrieve.ops.topk import topk as topk
from fastretrieve.training import TrainingResult as TrainingResult
from fastretrieve.training import train as train

__version__: str
__all__: list[str]
