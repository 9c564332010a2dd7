// Classifies pictures with a model of a bundle on ONNX Runtime.
//
//   classify BUNDLE cat.ppm dog.ppm [--model NAME] [--top K] [--threads N] [--cropped] [--bench RUNS]
//
// Pictures are binary PPM; - reads them from the standard input, one after the other:
//   ffmpeg -i clip.mp4 -r 1 -f image2pipe -c:v ppm - | classify BUNDLE -
#include "../bundle.hpp"

#define ORT_API_MANUAL_INIT  // main looks first whether the library is new enough
#include <onnxruntime_cxx_api.h>

using namespace edgedistill;

namespace {

Ort::SessionOptions options(int threads) {
    Ort::SessionOptions found;
    found.SetIntraOpNumThreads(threads);
    found.SetInterOpNumThreads(1);
    found.SetLogSeverityLevel(3);
    if (threads > 1) found.AddConfigEntry("session.intra_op.allow_spinning", "0");
    return found;
}

// A model opened by ONNX Runtime on the CPU.
class Session {
public:
    Session(const Model& model, std::int64_t classes, int threads)
        : model_(model), classes_(classes), session_(env_, model.path.c_str(), options(threads)) {
        shape_ = {std::max<std::int64_t>(model.batch, 1)};
        shape_.insert(shape_.end(), model.shape.begin(), model.shape.end());
        Ort::AllocatorWithDefaultOptions allocator;
        const auto type = [](const Ort::TypeInfo& info) { return info.GetTensorTypeAndShapeInfo().GetElementType(); };
        bool fits = session_.GetInputCount() == 1 && type(session_.GetInputTypeInfo(0)) == input_type() &&
                    session_.GetInputNameAllocated(0, allocator).get() == model.input;
        bool gives = false;
        for (std::size_t i = 0; i < session_.GetOutputCount(); ++i)
            gives |= session_.GetOutputNameAllocated(i, allocator).get() == model.output &&
                     type(session_.GetOutputTypeInfo(i)) == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        if (!fits || !gives)
            throw Fault(model.file + " is not what the manifest says: it should take " + model.input + " (" +
                        model.input_type + ") and give " + model.output + ". Copy the bundle again.");
    }

    std::int64_t batch() const { return shape_[0]; }

    std::vector<float> run(const Bytes& input) {
        auto* data = const_cast<std::uint8_t*>(input.data());  // the API has no constant tensors; it only reads
        const auto tensor =
            Ort::Value::CreateTensor(memory_, data, input.size(), shape_.data(), shape_.size(), input_type());
        const char* takes[] = {model_.input.c_str()};
        const char* gives[] = {model_.output.c_str()};
        const auto outputs = session_.Run(Ort::RunOptions{nullptr}, takes, &tensor, 1, gives, 1);
        const auto found = outputs[0].GetTensorTypeAndShapeInfo().GetShape();
        if (found != std::vector<std::int64_t>{batch(), classes_})
            throw Fault(model_.file + " gave an output of another shape than the manifest says.");
        const float* logits = outputs[0].GetTensorData<float>();
        return {logits, logits + classes_};
    }

private:
    ONNXTensorElementDataType input_type() const {
        if (model_.layout == "uint8_nhwc") return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
        if (model_.layout == "int8_nhwc") return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
        return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    }

    const Model& model_;
    std::int64_t classes_;
    std::vector<std::int64_t> shape_;
    Ort::Env env_{ORT_LOGGING_LEVEL_ERROR, "classify"};
    Ort::Session session_;
    Ort::MemoryInfo memory_ = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
};

void classify_with_onnxruntime(const Arguments& given) {
    const auto* base = OrtGetApiBase();
    if (base->GetApi(ORT_API_VERSION) == nullptr)
        throw Fault(std::string("this program was compiled for ONNX Runtime 1.") + std::to_string(ORT_API_VERSION) +
                    ", the library that was found is the older " + base->GetVersionString() + ".");
    Ort::InitApi();
    const Bundle bundle = load_bundle(given.words[0]);
    const Model& model = bundle.model(given.text("--model"));
    require_known(model);
    Session session(model, static_cast<std::int64_t>(bundle.classes.size()), given.number("--threads", 1, 1, 1024));
    classify(given, bundle, model, session.batch(), [&](const Bytes& input) { return session.run(input); });
}

}  // namespace

int main(int argc, char** argv) {
    return guarded([&] { classify_with_onnxruntime(parse(argc, argv, "--threads")); });
}
