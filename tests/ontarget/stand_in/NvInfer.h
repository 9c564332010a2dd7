// A stand-in for TensorRT's C++ API: an engine is its ONNX file, which onnxruntime computes on the addresses that it is
// given. It reads what the stand-in of the Python module wrote. Only what export/examples/tensorrt calls, with the
// signatures of TensorRT 10.3; a test compiles the program against NVIDIA's own headers where they are.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>
#include <nlohmann/json.hpp>
#include <onnxruntime_cxx_api.h>

namespace nvinfer1 {

enum class DataType : int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4, kUINT8 = 5 };
enum class TensorIOMode : int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class OptProfileSelector : int32_t { kMIN = 0, kOPT = 1, kMAX = 2 };

class Dims64 {
public:
    static constexpr int32_t MAX_DIMS{8};
    int32_t nbDims;
    int64_t d[MAX_DIMS];
};
using Dims = Dims64;

class ILogger {
public:
    enum class Severity : int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
    virtual void log(Severity severity, char const* msg) noexcept = 0;
    virtual ~ILogger() = default;
};

// The graph of an engine; on the device are the input and the output.
struct Graph {
    nlohmann::json about;
    Ort::Env env{ORT_LOGGING_LEVEL_ERROR};
    Ort::Session session{nullptr};
    std::string input, output;
    std::vector<int64_t> takes, gives;
    ONNXTensorElementDataType type{};

    Graph(char const* data, std::size_t size) {
        const std::string text(data, size);
        const auto end = text.find('\n');
        about = nlohmann::json::parse(text.substr(6, end - 6));
        session = Ort::Session(env, data + end + 1, size - end - 1, Ort::SessionOptions());
        Ort::AllocatorWithDefaultOptions allocator;
        input = session.GetInputNameAllocated(0, allocator).get();
        output = session.GetOutputNameAllocated(0, allocator).get();
        const auto in = session.GetInputTypeInfo(0), out = session.GetOutputTypeInfo(0);
        takes = in.GetTensorTypeAndShapeInfo().GetShape();
        type = in.GetTensorTypeAndShapeInfo().GetElementType();
        gives = out.GetTensorTypeAndShapeInfo().GetShape();
    }
};

class IExecutionContext {
public:
    explicit IExecutionContext(Graph& graph) : graph_(graph) {}
    virtual ~IExecutionContext() noexcept = default;

    bool setInputShape(char const* tensorName, Dims const& dims) noexcept {
        shape_.assign(dims.d, dims.d + dims.nbDims);
        return tensorName == graph_.input;
    }
    bool setTensorAddress(char const* tensorName, void* data) noexcept {
        addresses_[tensorName] = data;
        return tensorName == graph_.input || tensorName == graph_.output;
    }
    bool enqueueV3(cudaStream_t stream) noexcept {
        if (stream == nullptr || std::getenv("FAKE_TENSORRT_FAIL")) return false;
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        std::size_t count = graph_.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? 4 : 1;
        for (const auto side : shape_) count *= static_cast<std::size_t>(side);
        const auto in = Ort::Value::CreateTensor(memory, addresses_[graph_.input], count, shape_.data(), shape_.size(),
                                                 graph_.type);
        const char *takes[] = {graph_.input.c_str()}, *gives[] = {graph_.output.c_str()};
        const auto out = graph_.session.Run(Ort::RunOptions{nullptr}, takes, &in, 1, gives, 1);
        const auto total = out[0].GetTensorTypeAndShapeInfo().GetElementCount();
        auto* to = static_cast<float*>(addresses_[graph_.output]);
        std::copy_n(out[0].GetTensorData<float>(), total, to);
        return true;
    }

private:
    Graph& graph_;
    std::vector<int64_t> shape_;
    std::map<std::string, void*> addresses_;
};

class ICudaEngine {
public:
    ICudaEngine(char const* data, std::size_t size) : graph_(data, size) {}
    virtual ~ICudaEngine() noexcept = default;

    IExecutionContext* createExecutionContext() noexcept { return new IExecutionContext(graph_); }
    Dims getTensorShape(char const* tensorName) const noexcept {
        return tensorName == graph_.input ? dims(graph_.takes)
               : tensorName == graph_.output ? dims(graph_.gives)
                                             : Dims{-1, {}};
    }
    Dims getProfileShape(char const* tensorName, int32_t profileIndex, OptProfileSelector select) const noexcept {
        if (tensorName != graph_.input || profileIndex != 0) return Dims{-1, {}};
        return dims(graph_.about["profile"][1 + static_cast<int>(select)].get<std::vector<int64_t>>());
    }
    DataType getTensorDataType(char const* tensorName) const noexcept {
        if (tensorName != graph_.input || graph_.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) return DataType::kFLOAT;
        return graph_.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 ? DataType::kINT8 : DataType::kUINT8;
    }
    TensorIOMode getTensorIOMode(char const* tensorName) const noexcept {
        return tensorName == graph_.input ? TensorIOMode::kINPUT
               : tensorName == graph_.output ? TensorIOMode::kOUTPUT
                                             : TensorIOMode::kNONE;
    }

private:
    static Dims dims(const std::vector<int64_t>& shape) {
        Dims found{static_cast<int32_t>(shape.size()), {}};
        std::copy(shape.begin(), shape.end(), found.d);
        return found;
    }
    mutable Graph graph_;
};

class IRuntime {
public:
    explicit IRuntime(ILogger& logger) : logger_(logger) {}
    virtual ~IRuntime() noexcept = default;

    void setDLACore(int32_t dlaCore) noexcept { core_ = dlaCore; }
    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept {
        const auto* data = static_cast<char const*>(blob);
        if (std::string(data, std::min<std::size_t>(size, 6)) != "ENGINE") {
            logger_.log(ILogger::Severity::kERROR, "the engine is damaged");
            return nullptr;
        }
        auto* engine = new ICudaEngine(data, size);
        logger_.log(ILogger::Severity::kINFO, "an engine was read");
        if (std::getenv("FAKE_TENSORRT_TELL")) std::fprintf(stderr, "DLA core %d\n", core_);
        return engine;
    }

private:
    ILogger& logger_;
    int32_t core_ = -1;
};

inline IRuntime* createInferRuntime(ILogger& logger) noexcept { return new IRuntime(logger); }

}  // namespace nvinfer1

// 100300 for 10.3.0, 8503 for 8.5.3: FAKE_TENSORRT, as TensorRT itself gives it.
inline int32_t getInferLibVersion() noexcept {
    const char* version = std::getenv("FAKE_TENSORRT");
    return version ? std::atoi(version) : 100300;
}
