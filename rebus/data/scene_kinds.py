"""The kinds of data that are drawn from the scenes world: a new kind is a file of its own and a line here."""

from rebus.data.scene_captions import SceneCaptions
from rebus.data.scene_crops import SceneCrops
from rebus.data.scene_documents import SceneDocuments
from rebus.data.scene_drawings import SceneDrawings
from rebus.data.scene_images import SceneImages
from rebus.data.scene_labels import SceneLabels
from rebus.data.scene_masks import SceneMasks
from rebus.data.scene_named_tasks import SceneNamedTasks
from rebus.data.scene_readings import SceneCaptionPairs, SceneQuestions
from rebus.data.scene_tasks import SceneTasks
from rebus.data.scene_texts import SceneTexts
from rebus.data.scene_videos import SceneVideos

SceneData = (
    SceneCaptions
    | SceneCaptionPairs
    | SceneCrops
    | SceneDocuments
    | SceneDrawings
    | SceneImages
    | SceneLabels
    | SceneMasks
    | SceneNamedTasks
    | SceneQuestions
    | SceneTasks
    | SceneTexts
    | SceneVideos
)
