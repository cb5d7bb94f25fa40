/* dcp_names.h: classes of a `.metadata` pickle, "module name" each. */
#ifndef CKPT_DCP_NAMES_H
#define CKPT_DCP_NAMES_H

#define DCP_MODULE "torch.distributed.checkpoint.metadata"
#define DCP_METADATA DCP_MODULE " Metadata"
#define DCP_TENSOR DCP_MODULE " TensorStorageMetadata"
#define DCP_BYTES DCP_MODULE " BytesStorageMetadata"
#define DCP_CHUNK DCP_MODULE " ChunkStorageMetadata"
#define DCP_INDEX DCP_MODULE " MetadataIndex"
#define DCP_STORAGE_META DCP_MODULE " StorageMeta"
#define DCP_STORAGE "torch.distributed.checkpoint.filesystem _StorageInfo"
#define DCP_SIZE "torch Size"

#endif
